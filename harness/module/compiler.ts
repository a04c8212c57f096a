import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { UsageError } from '../base/errors.js';
import { exists } from '../base/files.js';
import { command } from '../host/command.js';
import { findProgram } from '../host/tools.js';
import type { BuildTree } from '../kernel/build-tree.js';
import type { Kernel } from '../kernel/kernel.js';

/** A compiler on this host. */
export interface Compiler {
  path: string;
  /** Such as "12.2.0". */
  version: string;
}

/**
 * The host's compiler for a kernel: the same version that built it (for gcc 4 the same minor, from 5 on the same major), else a newer gcc
 * if the kernel's headers can take it. Throws UsageError if there is none.
 */
export async function hostCompiler(kernel: Kernel, tree: BuildTree): Promise<Compiler> {
  if (kernel.compiler?.startsWith('clang'))
    throw new UsageError(
      'wrong-compiler',
      `${kernel.id} was built with ${kernel.compiler}, and modules are built with gcc here: build it yourself and give the .ko`,
    );
  const wanted = /^gcc (\d+)\.(\d+)/.exec(kernel.compiler ?? '');
  const found: Compiler[] = [];
  const names = wanted ? [`gcc-${wanted[1]}`, `gcc-${wanted[1]}.${wanted[2]}`, 'gcc'] : ['gcc'];
  for (const name of names) {
    const path = await findProgram(name);
    if (path) found.push({ path, version: await versionOf(path) });
  }
  const same = found.find(
    ({ version }) => !wanted || series(version) === series(`${wanted[1]}.${wanted[2]}`),
  );
  if (same) return same;
  const built = `${kernel.id} was built with ${kernel.compiler}`;
  const advice = 'give --builder docker';
  const [newer] = found;
  if (!newer)
    throw new UsageError('no-compiler', `${built}, and this host has no gcc: install one, or ${advice}`);
  const why = await cannotTake(newer, kernel, tree);
  if (why)
    throw new UsageError(
      'wrong-compiler',
      `${built}, and this host's gcc ${newer.version} will not do: ${why}; ${advice}`,
    );
  return newer;
}

async function versionOf(path: string): Promise<string> {
  return (await command(path, ['-dumpfullversion', '-dumpversion'])).trim();
}

/** What has to agree between compilers of a kernel and its module. */
function series(version: string): string {
  const [major = '', minor = ''] = version.split('.');
  return Number(major) < 5 ? `${major}.${minor}` : major;
}

/** Why a kernel's headers cannot be compiled by another version of gcc, or null. */
async function cannotTake({ version }: Compiler, kernel: Kernel, tree: BuildTree): Promise<string | null> {
  const major = Number.parseInt(version, 10);
  if (major < Number.parseInt(kernel.compiler?.replace(/^\D+/, '') ?? '0', 10)) return 'it is older';
  // Kernels before 4.2 have a header for each major version of gcc that they know.
  const generic = join(tree.headers, 'include/linux/compiler-gcc.h');
  const text = await readFile(generic, 'utf8').catch(() => '');
  const own = `include/linux/compiler-gcc${major}.h`;
  if (/gcc_header\(/.test(text) && !(await exists(join(tree.headers, own))))
    return `the kernel's headers do not know it (no ${own})`;
  return null;
}
