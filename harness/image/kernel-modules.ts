import { copyFile, mkdir } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { UsageError } from '../base/errors.js';
import { buildOnce, contentKey, exists, scratchDir } from '../base/files.js';
import { insideOf } from '../base/given-file.js';
import { cacheDir } from '../base/paths.js';
import { command, commandError, host } from '../host/command.js';
import { needProgram } from '../host/tools.js';
import type { Kernel } from '../kernel/kernel.js';
import { packCpio } from './cpio.js';

/**
 * Archives with modules of one kernel and everything that they depend on: what its guest loads (and `extra` if it has them), and what its
 * crash kernel loads, if it can be one.
 */
export async function ensureModulesArchives(
  kernel: Kernel,
  { modules, optionalModules }: { modules: readonly string[]; optionalModules: readonly string[] },
  extra: readonly string[] = [],
): Promise<{ guest: string; capture: string | null }> {
  return {
    guest: await ensureArchive(kernel, modules, [...optionalModules, ...extra]),
    capture: kernel.profile.kdump ? await ensureArchive(kernel, kernel.profile.captureModules, []) : null,
  };
}

/** Cached by kernel and list. */
async function ensureArchive(
  kernel: Kernel,
  wanted: readonly string[],
  optional: readonly string[],
): Promise<string> {
  const key = contentKey(kernel.id, kernel.key, kernel.release, ...wanted, ...optional);
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
      const found = await host(modprobe, args, { reject: false });
      if (found.failed && !/not found in directory/.test(found.stderr)) throw commandError('modprobe', found);
      if (found.failed && optional.includes(name)) continue;
      if (found.failed)
        throw new UsageError(
          'no-such-module',
          `kernel ${kernel.id} has no ${name}: it cannot run this scenario`,
        );
      for (const [, file] of found.stdout.matchAll(/^insmod (\S+)/gm)) {
        if (file === undefined) continue;
        await insideOf(join(kernel.modulesRoot, tree), file, 'odd-kernel');
        const to = join(scratch.path, relative(kernel.modulesRoot, file));
        await mkdir(dirname(to), { recursive: true });
        await copyFile(file, to);
      }
    }
    await mkdir(join(scratch.path, tree), { recursive: true });
    for (const name of ['modules.builtin', 'modules.builtin.modinfo', 'modules.order'])
      if (await exists(join(kernel.modulesRoot, tree, name)))
        await copyFile(join(kernel.modulesRoot, tree, name), join(scratch.path, tree, name));
    await command(depmod, ['-b', scratch.path, kernel.release]);
    await packCpio(scratch.path, out);
  });
  return target;
}
