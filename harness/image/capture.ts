import { appendFile, cp, mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { buildOnce, contentKey, scratchDir } from '../base/files.js';
import { cacheDir, imagesDir } from '../base/paths.js';
import { packCpio } from './cpio.js';

/**
 * The crash kernel's initramfs: its userland, the kernel's modules, and our init. Cached by content. `userland` and `modules` are the
 * archives of the same trial.
 */
export async function ensureCaptureArchive(userland: string, modules: string): Promise<string> {
  const init = join(imagesDir, 'capture/init');
  const parts = [await readFile(userland), await readFile(modules)];
  const target = cacheDir('images', `capture-${contentKey(...parts, await readFile(init))}.cpio`);
  await buildOnce(target, async (out) => {
    await using scratch = await scratchDir('capture');
    const root = join(scratch.path, 'root');
    await mkdir(root);
    await cp(init, join(root, 'init'));
    await packCpio(root, join(scratch.path, 'init.cpio'));
    for (const part of [...parts, await readFile(join(scratch.path, 'init.cpio'))])
      await appendFile(out, part);
  });
  return target;
}
