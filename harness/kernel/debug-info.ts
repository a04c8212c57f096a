import { copyFile, mkdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { InfraError, UsageError } from '../base/errors.js';
import { buildOnce, exists, scratchDir } from '../base/files.js';
import type { Progress } from '../base/progress.js';
import { host } from '../host/command.js';
import { fileKind, findFiles, unpackPackage } from '../package/package-files.js';
import { downloadRpm } from '../package/rpm-repository.js';
import { catalogueEntry, located } from './catalogue.js';
import { debianPackages } from './debian.js';
import type { Kernel } from './kernel.js';

const debugDir = (kernel: Pick<Kernel, 'dir'>): string => join(kernel.dir, 'debug');

/** The kernel's vmlinux with debug info, if it is on this host; else null. */
export async function debugVmlinux(kernel: Kernel): Promise<string | null> {
  const file = join(debugDir(kernel), `vmlinux-${kernel.release}`);
  return (await exists(file)) ? file : null;
}

/**
 * Brings the debug info of exactly this kernel from where it came from: only vmlinux (Debian: 0.6 GB) is taken out of the package, of the
 * 5.6 GB that it would unpack to; it has every type that the analysis asks for. Returns vmlinux. Throws UsageError if the kernel was
 * added without, InfraError if its repository no longer has it.
 */
export async function ensureDebugInfo(kernel: Kernel, progress: Progress): Promise<string> {
  await buildOnce(debugDir(kernel), (out) =>
    progress.step(`debug info of ${kernel.id}`, async (update) => {
      await using scratch = await scratchDir('debug');
      const file = await fetchDebugPackage(kernel, scratch.path, update);
      await layOutDebugInfo(out, file, kernel.release, update);
    }),
  );
  const vmlinux = await debugVmlinux(kernel);
  if (!vmlinux)
    throw new InfraError(
      'no-debug-info',
      `kernel ${kernel.id} has lost its debug info: fetch or add it again`,
    );
  return vmlinux;
}

async function fetchDebugPackage(
  kernel: Kernel,
  dir: string,
  update: (text: string) => void,
): Promise<string> {
  const { id, suite, version, release } = kernel;
  if (kernel.origin === 'debian' && suite !== undefined) {
    const names = [`linux-image-${release}-dbg`];
    const [file = ''] = await debianPackages({ id, suite, version, names }, dir, update);
    return file;
  }
  const entry = kernel.origin === 'rpm' ? await catalogueEntry(id).catch(() => null) : null;
  if (entry?.origin === 'rpm' && entry.debuginfo)
    return (await downloadRpm(await located(entry.debuginfo), dir, update)).file;
  throw new UsageError(
    'no-debug-info',
    `kernel ${id} was added without debug info: add it again with --debuginfo`,
  );
}

/** Takes vmlinux out of a debug package, or copies it, to `out`/vmlinux-`release`. Throws UsageError if it is another kernel's. */
export async function layOutDebugInfo(
  out: string,
  file: string,
  release: string,
  update: (text: string) => void,
): Promise<void> {
  await mkdir(out);
  const target = join(out, `vmlinux-${release}`);
  update(`taking vmlinux out of ${file.replace(/.*\//, '')}`);
  const kind = await fileKind(file);
  if (kind === 'elf') await copyFile(file, target);
  else {
    await using scratch = await scratchDir('vmlinux');
    await unpackPackage(
      file,
      scratch.path,
      kind === 'deb' ? `./usr/lib/debug/*vmlinux*` : './usr/lib/debug/*/vmlinux',
    );
    const [found] = await findFiles(scratch.path, /(^|\/)vmlinux(-[^/]*)?$/);
    if (found === undefined)
      throw new UsageError('no-debug-info', `${file}: there is no vmlinux below usr/lib/debug in it`);
    await rename(join(scratch.path, found), target);
  }
  const has = async (text: string): Promise<boolean> =>
    (await host('grep', ['-qaF', text, target], { reject: false })).exitCode === 0;
  if (!(await has('.debug_info')))
    throw new UsageError('no-debug-info', `${file}: its vmlinux is without debug info`);
  if (!(await has(`Linux version ${release} `)))
    throw new UsageError('wrong-debug-info', `${file}: its vmlinux is not that of ${release}`);
}
