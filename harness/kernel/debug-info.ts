import { mkdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { InfraError } from '../base/errors.js';
import { buildOnce, exists, scratchDir } from '../base/files.js';
import type { Progress } from '../base/progress.js';
import { AptWorkspace } from '../host/apt.js';
import { commandError } from '../host/command.js';
import { needProgram } from '../host/tools.js';
import type { Kernel } from './kernel.js';

const debugDir = (kernel: Kernel): string => join(kernel.dir, 'debug');

/** The kernel's vmlinux with debug info, if `ensureDebugInfo` has brought it; else null. */
export async function debugVmlinux(kernel: Kernel): Promise<string | null> {
  const file = join(debugDir(kernel), `vmlinux-${kernel.release}`);
  return (await exists(file)) ? file : null;
}

/**
 * Brings the debug info of exactly this kernel from its suite: only vmlinux (0.6 GB) is taken out of the package, of the 5.6 GB that
 * it would unpack to; it has every type that the analysis asks for. Returns vmlinux. Throws InfraError if the suite no longer has that version.
 */
export async function ensureDebugInfo(kernel: Kernel, progress: Progress): Promise<string> {
  await buildOnce(debugDir(kernel), (out) =>
    progress.step(`debug info of ${kernel.id}`, async (update) => {
      const name = `linux-image-${kernel.release}-dbg`;
      update(`reading ${kernel.suite}'s package lists`);
      const apt = await AptWorkspace.open(kernel.suite);
      await using scratch = await scratchDir('debug');
      update(`downloading ${name} ${kernel.version}`);
      const deb = await apt
        .download({ name, version: kernel.version }, scratch.path)
        .catch((error: unknown) => {
          throw new InfraError(
            'version-gone',
            `${kernel.suite} no longer has ${name} ${kernel.version}: run 'loopanic kernel fetch ${kernel.id}' for the current kernel`,
            error,
          );
        });
      update('taking vmlinux out of the package');
      const [dpkg, tar] = [await needProgram('dpkg-deb'), await needProgram('tar')];
      const unpacked = join(scratch.path, 'unpacked');
      await mkdir(unpacked);
      try {
        // --occurrence makes tar stop reading once it has the file: dpkg-deb then ends on a closed pipe, and only tar's word counts.
        await execa(dpkg, ['--fsys-tarfile', deb], { buffer: { stdout: false }, reject: false }).pipe(tar, [
          ...['-x', '-C', unpacked, '--strip-components=5', '--occurrence=1'],
          `./usr/lib/debug/boot/vmlinux-${kernel.release}`,
        ]);
      } catch (error) {
        throw commandError('unpacking the debug package', error);
      }
      await mkdir(out);
      await rename(join(unpacked, `vmlinux-${kernel.release}`), join(out, `vmlinux-${kernel.release}`));
    }),
  );
  const vmlinux = await debugVmlinux(kernel);
  if (!vmlinux)
    throw new InfraError(
      'no-debug-info',
      `the debug package of ${kernel.id} held no vmlinux-${kernel.release}`,
    );
  return vmlinux;
}
