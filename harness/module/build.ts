import { chmod, copyFile, cp, mkdir, readdir, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { execa } from 'execa';
import { firstLine, InterruptedError, UsageError } from '../base/errors.js';
import { scratchDir } from '../base/files.js';
import type { Progress } from '../base/progress.js';
import { needProgram } from '../host/tools.js';
import { ensureBuildTree, moduleSources } from '../kernel/build-tree.js';
import type { Kernel } from '../kernel/kernel.js';
import { type Compiler, hostCompiler } from './compiler.js';
import { buildInContainer, engineAnswers } from './docker-build.js';
import { type BuildJob, type BuildResult, makeArguments, timedOut } from './make.js';
import { type Change, prepareSources } from './sources.js';

/** How modules are built. */
export interface BuildOptions {
  /** `auto`: on this host if it has the right compiler, else in a container. */
  builder: 'auto' | 'docker' | 'host';
  /** Tarball of the builder image (docker save's, or a root file system), for hosts without a registry. */
  builderImage?: string | undefined;
  /** Seconds after which a build is stopped. */
  buildSeconds: number;
}

/** A build that takes longer than this under any builder has gone astray: three seconds were seen. */
export const BUILD_DEFAULTS: BuildOptions = { builder: 'auto', buildSeconds: 600 };

/**
 * Builds libiscsi_tcp.ko for a kernel from its own source with a change, and leaves it as `target`. Throws UsageError if the change does not
 * fit, does not compile, or there is no compiler that the kernel can take; the compiler's lines go to `progress` before.
 */
export async function buildModule(
  { name, change, kernel, target }: { name: string; change: Change; kernel: Kernel; target: string },
  options: BuildOptions,
  progress: Progress,
  signal?: AbortSignal,
): Promise<void> {
  const tree = await ensureBuildTree(kernel, progress);
  if (tree.source === null)
    throw new UsageError(
      'no-source',
      `kernel ${kernel.id} was added without its source: add it again with --source`,
    );
  const { source: kernelSource } = tree;
  await progress.step(`module ${name} for ${kernel.id}`, async (update) => {
    await using scratch = await scratchDir('module');
    const work = join(scratch.path, 'kernel');
    await prepareSources(change, kernelSource, work).catch((error: unknown) => {
      if (!(error instanceof UsageError)) throw error;
      throw new UsageError(error.code, `module ${name} ${firstLine(error)}`, error);
    });
    const source = join(scratch.path, 'source');
    await mkdir(source);
    for (const file of moduleSources) await copyFile(join(work, file), join(source, basename(file)));
    await writeFile(join(source, 'Makefile'), 'obj-m := libiscsi_tcp.o\n');
    // Whoever builds may read it, whatever this user's umask.
    await chmod(source, 0o755);
    for (const file of await readdir(source)) await chmod(join(source, file), 0o644);
    const out = join(scratch.path, 'out');
    await mkdir(out);
    const job: BuildJob = { kernel, tree, source, out, seconds: options.buildSeconds, update };
    const made = await build(job, options, signal);
    if (made.failed) {
      const lines = made.output.split('\n').map((line) => line.replace(/^.*\/(?=libiscsi_tcp\.c:)/, ''));
      const errors = [/\berror:/, /: not found/, /Error \d|\*\*\*/].flatMap((sign) =>
        lines.filter((line) => sign.test(line)),
      );
      for (const line of lines.filter((text) => /: (error|warning|note):/.test(text)).slice(0, 20))
        progress.line(line);
      const said =
        made.why ?? errors[0] ?? lines.findLast((line) => line.trim() !== '') ?? 'make said nothing';
      throw new UsageError(
        'module-build-failed',
        `module ${name} does not compile for ${kernel.id}: ${said.trim()}`,
      );
    }
    if (signal?.aborted) throw new InterruptedError();
    await copyFile(join(out, 'libiscsi_tcp.ko'), target);
  });
}

async function build(
  job: BuildJob,
  options: BuildOptions,
  signal: AbortSignal | undefined,
): Promise<BuildResult> {
  if (options.builder === 'docker') return buildInContainer(job, options.builderImage, signal);
  let compiler: Compiler;
  try {
    compiler = await hostCompiler(job.kernel, job.tree);
  } catch (error) {
    if (options.builder === 'host' || !(await engineAnswers())) throw error;
    job.update(`${firstLine(error)}: building in a container`);
    return buildInContainer(job, options.builderImage, signal);
  }
  return buildOnHost(job, compiler, signal);
}

async function buildOnHost(
  { tree, source, out, seconds, update }: BuildJob,
  compiler: Compiler,
  signal: AbortSignal | undefined,
): Promise<BuildResult> {
  await using scratch = await scratchDir('make');
  const dir = join(scratch.path, 'build');
  await cp(source, dir, { recursive: true });
  update(`compiling with gcc ${compiler.version}`);
  const place = { headers: tree.headers, root: tree.root, dir, cc: compiler.path, version: compiler.version };
  // timeout ends make's children too.
  const made = await execa(
    await needProgram('timeout'),
    ['-k', '5', String(seconds), await needProgram('make'), ...makeArguments(place)],
    { all: true, reject: false, env: { LC_ALL: 'C' }, ...(signal ? { cancelSignal: signal } : {}) },
  );
  if (signal?.aborted) throw new InterruptedError();
  if (!made.failed) await copyFile(join(dir, 'libiscsi_tcp.ko'), join(out, 'libiscsi_tcp.ko'));
  return {
    failed: made.failed,
    output: made.all,
    ...timedOut(made.exitCode, seconds),
  };
}
