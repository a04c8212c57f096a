import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { scratchDir } from '../base/files.js';
import type { Progress } from '../base/progress.js';
import { shellQuote as quote } from '../base/shell-word.js';
import { needProgram } from '../host/tools.js';
import { mmdebstrap } from './mmdebstrap.js';
import type { InitramfsRecipe } from './recipe.js';

/** Builds an image that lives in its initramfs with the script `assemble`: two cpio archives in `out`, userland.cpio and capture.cpio. */
export async function buildUserland(
  name: string,
  recipe: InitramfsRecipe,
  assemble: string,
  out: string,
  progress: Progress,
): Promise<void> {
  await progress.step(`image ${name}`, async (update) => {
    await needProgram('cpio');
    const hooks = [
      {
        archive: 'userland',
        programs: [...recipe.programs, ...recipe.extra.programs, ...recipe.extra.files],
      },
      { archive: 'capture', programs: recipe.capture },
    ].flatMap(({ archive, programs }) => [
      `--extract-hook=${quote(assemble)} "$1" ${archive} ${programs.map(quote).join(' ')}`,
      `--extract-hook=download /${archive}.cpio ${quote(join(out, `${archive}.cpio`))}`,
    ]);
    await mkdir(out);
    await using scratch = await scratchDir('image');
    await mmdebstrap(
      {
        name,
        suite: recipe.suite,
        packages: [...recipe.packages, ...recipe.extra.packages],
        // Nothing in the root needs /proc, /sys or /dev/shm, and clearing away a killed build must never meet a mount.
        options: ['--variant=extract', '--skip=chroot/mount', '--format=null', ...hooks],
        target: '-',
        temp: scratch.path,
      },
      update,
    );
  });
}
