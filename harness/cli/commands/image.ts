import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { ensureUserland, imageNames, userlandPath } from '../../image/userland.js';
import { printResult, progressFor, table } from '../context.js';

/** `loopanic image ls`: guest images, and which are built. */
export async function imageList(args: { json: boolean }): Promise<number> {
  const rows = await Promise.all(
    (await imageNames()).map(async (name) => {
      const archive = join(await userlandPath(name), 'userland.cpio');
      const size = await stat(archive).then(
        (info) => info.size,
        () => null,
      );
      return { name, built: size !== null, bytes: size, archive };
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
  return 0;
}

/** `loopanic image build [NAME]`: builds a guest image anew. */
export async function imageBuild(args: { name: string; json: boolean }): Promise<number> {
  const image = await ensureUserland(args.name, progressFor(), true);
  printResult(args.json, image, () => [`${image.name}: ${image.archive}`]);
  return 0;
}
