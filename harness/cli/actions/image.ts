import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { EXIT } from '../../base/errors.js';
import { ensureImage, imageNames, imagePath } from '../../image/image.js';
import { printResult, progressFor, table } from '../context.js';

/** `loopanic image ls`: guest images, and which are built. */
export async function imageList(args: { json: boolean }): Promise<number> {
  const rows = await Promise.all(
    (await imageNames()).map(async (name) => {
      const path = await imagePath(name);
      const bytes = await bytesOf(path);
      return { name, built: bytes !== null, bytes, path };
    }),
  );
  printResult(args.json, rows, () =>
    table([
      ['IMAGE', 'BUILT', 'MiB'],
      ...rows.map((row) => [
        row.name,
        row.built ? 'yes' : 'no',
        row.bytes === null ? '-' : (row.bytes / 2 ** 20).toFixed(1),
      ]),
    ]),
  );
  return EXIT.ok;
}

/** Bytes on disk of an image's files (a root disk is sparse); null if it is not built. */
async function bytesOf(dir: string): Promise<number | null> {
  const names = await readdir(dir).catch(() => null);
  if (names === null) return null;
  const sizes = await Promise.all(names.map(async (name) => (await stat(join(dir, name))).blocks * 512));
  return sizes.reduce((sum, size) => sum + size, 0);
}

/** `loopanic image build [NAME]`: builds a guest image anew. */
export async function imageBuild(args: { name: string; json: boolean }): Promise<number> {
  const { name, key, archive, disk } = await ensureImage(args.name, progressFor(), true);
  printResult(args.json, { name, key, archive, disk }, () => [`${name}: ${disk ?? archive}`]);
  return EXIT.ok;
}
