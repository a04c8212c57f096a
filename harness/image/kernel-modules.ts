import { copyFile, mkdir } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { execa } from 'execa';
import { UsageError } from '../base/errors.js';
import { buildOnce, contentKey, scratchDir } from '../base/files.js';
import { cacheDir } from '../base/paths.js';
import { command, commandError } from '../host/command.js';
import { needProgram } from '../host/tools.js';
import type { Kernel } from '../kernel/kernel.js';
import { packCpio } from './cpio.js';

/** Modules that a guest loads, in this order. Built-in ones need no file. */
export const guestModules = [
  'virtio_pci',
  'virtio_blk',
  'virtio_net',
  'sd_mod',
  // XFS asks for the crc32c algorithm by alias, which no dependency names.
  'crc32c_generic',
  'iscsi_tcp',
  'xfs',
] as const;

/** Modules that a guest loads if its kernel has them: QEMU's vmcoreinfo device, for dumps that QEMU takes. */
export const optionalModules = ['qemu_fw_cfg'] as const;

/** Modules that the crash kernel loads (vm-images/capture/init). */
const captureModules = ['virtio_pci', 'virtio_console'] as const;

/** Archives with modules of one kernel and everything that they depend on: what its guest loads, and what its crash kernel loads. */
export async function ensureModulesArchives(kernel: Kernel): Promise<{ guest: string; capture: string }> {
  return {
    guest: await ensureArchive(kernel, guestModules, optionalModules),
    capture: await ensureArchive(kernel, captureModules, []),
  };
}

/** Cached by kernel and list. */
async function ensureArchive(
  kernel: Kernel,
  wanted: readonly string[],
  optional: readonly string[],
): Promise<string> {
  const key = contentKey(kernel.id, kernel.version, kernel.release, ...wanted, ...optional);
  const target = cacheDir('images', `modules-${kernel.id}-${key}.cpio`);
  await buildOnce(target, async (out) => {
    const [modprobe, depmod] = [await needProgram('modprobe'), await needProgram('depmod')];
    await using scratch = await scratchDir('modules');
    const tree = join('lib/modules', kernel.release);
    for (const name of [...wanted, ...optional]) {
      const args = [
        '-d',
        kernel.modulesRoot,
        '-S',
        kernel.release,
        '--show-depends',
        '--ignore-install',
        name,
      ];
      const found = await execa(modprobe, args, { reject: false, env: { LC_ALL: 'C' } });
      if (found.failed && !/not found in directory/.test(found.stderr)) throw commandError('modprobe', found);
      if (found.failed && optional.includes(name)) continue;
      if (found.failed)
        throw new UsageError(
          'no-such-module',
          `kernel ${kernel.id} has no ${name}: it cannot run this scenario`,
        );
      for (const [, file] of found.stdout.matchAll(/^insmod (\S+)/gm)) {
        if (file === undefined) continue;
        const to = join(scratch.path, relative(kernel.modulesRoot, file));
        await mkdir(dirname(to), { recursive: true });
        await copyFile(file, to);
      }
    }
    for (const name of ['modules.builtin', 'modules.order'])
      await copyFile(join(kernel.modulesRoot, tree, name), join(scratch.path, tree, name));
    await command(depmod, ['-b', scratch.path, kernel.release]);
    await packCpio(scratch.path, out);
  });
  return target;
}
