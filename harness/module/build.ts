import { copyFile, cp, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { firstLine, InterruptedError, UsageError } from '../base/errors.js';
import { exists, scratchDir } from '../base/files.js';
import type { Progress } from '../base/progress.js';
import type { GateModule } from '../bug/bug.js';
import { koName } from '../bug/family.js';
import { host } from '../host/command.js';
import { needProgram } from '../host/tools.js';
import { ensureBuildTree, sourceFiles } from '../kernel/build-tree.js';
import type { Kernel } from '../kernel/kernel.js';
import { offeredSymbols, wantedSymbols, whyRefused } from '../kernel/symbol-versions.js';
import type { BuildOptions } from './build-options.js';
import { type Compiler, hostCompiler } from './compiler.js';
import { buildInContainer, engineAnswers } from './docker-build.js';
import { type BuildJob, type BuildResult, makeArguments, timedOut } from './make.js';
import { type Change, prepareSources } from './sources.js';

/**
 * What modpost says of a symbol that it does not find, or finds without a version or a namespace that was imported; before 5.6 without
 * its name.
 */
const UNRESOLVED =
  /^(?:ERROR|WARNING): (?:modpost: )?.*(?:undefined!|has no CRC|no symbol version for|version generation failed|uses symbol \S+ from namespace|is missing\.$)/;

/** Modules beside `own` (a file name) that make says it has linked. */
export function otherModules(output: string, own: string): string[] {
  const linked = [...output.matchAll(/^\s*LD \[M\]\s+(?:\S*\/)?(\S+\.ko)$/gm)].map(([, file = '']) => file);
  return [...new Set(linked)].filter((file) => file !== own);
}

async function whyKernelRefuses(file: string, headers: string): Promise<string | null> {
  const offered = await offeredSymbols(headers);
  return offered === null ? null : whyRefused(await wantedSymbols(file), offered);
}

/**
 * Builds a module for a kernel from its own source with a change, and leaves it as `target`. Throws UsageError if the change does not
 * fit, does not compile, or there is no compiler that the kernel can take; the compiler's lines go to `progress` before.
 */
export async function buildModule(
  {
    name,
    change,
    kernel,
    gate,
    target,
  }: { name: string; change: Change; kernel: Kernel; gate: GateModule; target: string },
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
  const ko = koName(gate);
  const files = await sourceFiles(kernelSource, gate);
  if (files.length === 0)
    throw new UsageError(
      'no-source',
      `kernel ${kernel.id}: the source that it was added with has no ${gate.dir}/${gate.sources[0]}`,
    );
  await progress.step(`module ${name} for ${kernel.id}`, async (update) => {
    await using scratch = await scratchDir('module');
    const source = join(scratch.path, 'source');
    const from = { source: kernelSource, release: kernel.release, gate, files };
    const notes = await prepareSources(change, from, join(scratch.path, 'kernel'), source).catch(
      (error: unknown) => {
        if (!(error instanceof UsageError)) throw error;
        throw new UsageError(error.code, `module ${name}: ${firstLine(error)}`, error);
      },
    );
    for (const note of notes) progress.line(note);
    // Whoever builds may read it, whatever this user's umask.
    await host('chmod', ['-R', 'u+rwX,go+rX', source]);
    const out = join(scratch.path, 'out');
    await mkdir(out);
    const job: BuildJob = { kernel, tree, source, out, ko, seconds: options.buildSeconds, update };
    const made = await build(
      job,
      { name, isForeign: change.kind === 'series' || change.kind === 'source' },
      options,
      progress,
      signal,
    );
    if (signal?.aborted) throw new InterruptedError();
    const lines = made.output
      .split('\n')
      .map((line) => line.replace(/[^\s[]*\/(?=[\w-]+\.(?:[ch]:|ko\]))/, ''));
    const cannotLoad = (why: string): UsageError =>
      new UsageError(
        'module-unresolved',
        `module ${name} cannot be loaded by ${kernel.id}: ${why}: are these the headers of exactly this kernel, with the Module.symvers of all its modules?`,
      );
    // What modpost cannot resolve the kernel cannot either: it would refuse the module in every boot.
    const unresolved = lines.find((line) => UNRESOLVED.test(line));
    if (unresolved !== undefined) throw cannotLoad(unresolved.trim());
    if (made.failed) {
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
    const others = otherModules(made.output, ko);
    if (others.length > 0)
      throw new UsageError(
        'more-modules',
        `module ${name}: its Makefile also builds ${others.join(', ')}, which would not be tried: leave that out`,
      );
    const refused = await whyKernelRefuses(join(out, ko), tree.headers);
    if (refused !== null) throw cannotLoad(refused);
    await copyFile(join(out, ko), target);
  });
}

async function build(
  job: BuildJob,
  { name, isForeign }: { name: string; isForeign: boolean },
  options: BuildOptions,
  progress: Progress,
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
  if (isForeign)
    progress.line(
      `module ${name}: is compiled on this host, as you: what its patch or Makefile makes the build run or read, it runs and reads as you (--builder docker keeps it apart)`,
    );
  return buildOnHost(job, compiler, signal);
}

async function buildOnHost(
  { tree, source, out, ko, seconds, update }: BuildJob,
  compiler: Compiler,
  signal: AbortSignal | undefined,
): Promise<BuildResult> {
  await using scratch = await scratchDir('make');
  const dir = join(scratch.path, 'build');
  await cp(source, dir, { recursive: true });
  update(`compiling with gcc ${compiler.version}`);
  const place = { headers: tree.headers, root: tree.root, dir, cc: compiler.path, version: compiler.version };
  // timeout ends make's children too.
  const made = await host(
    await needProgram('timeout'),
    ['-k', '5', String(seconds), await needProgram('make'), ...makeArguments(place)],
    // As in the shell of somebody who builds in that folder.
    { all: true, reject: false, env: { LC_ALL: 'C', PWD: dir }, ...(signal ? { cancelSignal: signal } : {}) },
  );
  if (signal?.aborted) throw new InterruptedError();
  const built = join(dir, ko);
  if (!made.failed && !(await exists(built)))
    return { failed: true, output: made.all, why: `its Makefile builds no ${ko}` };
  if (!made.failed) await copyFile(built, join(out, ko));
  return {
    failed: made.failed,
    output: made.all,
    ...timedOut(made.exitCode, seconds),
  };
}
