import { createHash } from 'node:crypto';
import { copyFile, mkdir, readdir, readFile, realpath, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { InterruptedError, UsageError } from '../base/errors.js';
import { contentKey, exists, scratchDir } from '../base/files.js';
import { readGiven } from '../base/given-file.js';
import { imagesDir } from '../base/paths.js';
import type { Progress } from '../base/progress.js';
import { allBugs, targetOf, transportOf } from '../bug/family.js';
import { command, host } from '../host/command.js';
import { findProgram, kernelHeaders, needProgram } from '../host/tools.js';
import { unpackPackage } from '../package/package-files.js';
import { type AddRequest, addKernel, checkNewId } from './add.js';
import { changedFiles, checkChangesSomething, checkIsCompiled } from './compiled-change.js';
import { debianPackages } from './debian.js';
import { ensureKernel } from './fetch.js';
import type { Kernel } from './kernel.js';
import type { KernelProfile } from './profile.js';
import { presentIds, presentKernel } from './store.js';

/** A kernel of a distribution with a patch to its core, which no module can stand in for. */
export interface KernelBuild {
  /** Kernel of Debian's that it is built from: source and configuration. */
  from: string;
  patches: readonly string[];
  id: string;
}

/** No line from the compiler for so long: the build has gone astray. */
const SILENCE_SECONDS = 900;

/**
 * Builds a kernel from a distribution's source package with patches, with its configuration less what guests do not need
 * (vm-images/kernel-patches/reduced.config), and adds it. Takes a quarter of an hour on two cores. A kernel of this id that was built
 * from the same is returned as it is. Throws UsageError if a patch does not apply or the kernel does not compile.
 */
export async function buildKernel(
  build: KernelBuild,
  progress: Progress,
  signal: AbortSignal,
): Promise<Kernel> {
  // By their text alone: before anything is fetched.
  const patches = await Promise.all(
    build.patches.map((file) =>
      realpath(file).catch((error: unknown) => {
        throw new UsageError('no-such-patch', `${file}: cannot be read`, error);
      }),
    ),
  );
  const texts = await Promise.all(
    patches.map(async (file) => (await readGiven(file, MOST_PATCH_MIB, 'no-such-patch')).toString()),
  );
  for (const [index, file] of patches.entries()) checkChangesSomething(file, texts[index] ?? '');
  const base = await ensureKernel(build.from, progress);
  if (base.origin !== 'debian' || base.suite === undefined || base.sourcePackage === undefined)
    throw new UsageError(
      'bad-usage',
      `--from ${build.from}: only kernels of Debian's can be built anew: add your own build with 'kernel add DIR'`,
    );
  await checkNewId(build.id);
  const made = await whatItIsMadeOf(base, patches);
  const present = await presentKernel(build.id);
  if (present?.built?.key === made.built.key) return present;
  await checkTools();
  const { suite, sourcePackage, version } = base;
  const started = performance.now();
  return progress.step(`kernel ${build.id} from ${base.id} ${version}`, async (update) => {
    await using scratch = await scratchDir('kernel-build');
    const [deb = ''] = await debianPackages(
      { id: base.id, suite, version, names: [sourcePackage] },
      scratch.path,
      update,
    );
    update('unpacking the source');
    await unpackPackage(deb, join(scratch.path, 'package'), './usr/src/linux-source-*.tar.*');
    const archive = (await readdir(join(scratch.path, 'package/usr/src')))[0] ?? '';
    const tree = join(scratch.path, 'tree');
    await mkdir(tree);
    await command(await needProgram('tar'), [
      '-x',
      '-C',
      tree,
      '--strip-components=1',
      '-f',
      join(scratch.path, 'package/usr/src', archive),
    ]);
    const before = new Map<string, string | null>();
    for (const { path } of texts.flatMap(changedFiles))
      if (!before.has(path)) before.set(path, await readFile(join(tree, path), 'utf8').catch(() => null));
    if (!isOwn(build.patches))
      progress.line(
        `${build.id}: is compiled on this host, as you: what a patch makes its build run or read, it runs and reads as you`,
      );
    for (const patch of patches) {
      const done = await host(
        await needProgram('patch'),
        ['-p1', '--fuzz=0', '--batch', '--forward', '-i', patch],
        { cwd: tree, reject: false, all: true },
      );
      const line = done.all
        .split('\n')
        .find((text) => /FAILED|failed|can't|malformed|[Rr]eversed/.test(text));
      if (done.failed)
        throw new UsageError(
          'patch-refused',
          `${patch}: does not apply to ${base.id}'s source: ${line ?? 'refused'}`,
        );
    }
    await configure(tree, base, build.id);
    // A patch may bring options: then it is another kernel in more than what it changes.
    made.built.base = contentKey(made.built.base, await configOf(tree));
    if (patches.length > 0) await checkIsCompiled(tree, before);
    await make(tree, update, signal);
    made.built.seconds = Math.round((performance.now() - started) / 1000);
    return await addKernel(
      {
        ...{ files: [tree], devel: [], id: build.id, verify: true, force: false },
        made: { ...made, keepTree: (link) => keepTree(tree, link) },
      },
      progress,
    );
  });
}

/** Patches that come with loopanic. */
function isOwn(patches: readonly string[]): boolean {
  return patches.every((patch) => resolve(patch).startsWith(`${imagesDir}/`));
}

/** No patch is larger. */
const MOST_PATCH_MIB = 64;
const REDUCED = join(imagesDir, 'kernel-patches/reduced.config');
/** Changes when a build of the same would come out differently. */
const BUILD_VERSION = '2';

/** Names a build by what goes into it, and says so in kernel.json. */
async function whatItIsMadeOf(
  base: Kernel,
  patches: readonly string[],
): Promise<Omit<NonNullable<AddRequest['made']>, 'keepTree'>> {
  const texts = await Promise.all(patches.map((file) => readFile(file)));
  const common = [BUILD_VERSION, base.id, base.key, await readFile(REDUCED)] as const;
  return {
    built: {
      key: contentKey(...common, ...texts),
      from: base.id,
      base: contentKey(...common),
      seconds: 0,
    },
    version: base.version,
    packages: [
      { name: base.sourcePackage ?? base.id, version: base.version },
      ...patches.map((file, index) => ({
        name: basename(file),
        version: '',
        sha256: createHash('sha256')
          .update(texts[index] ?? '')
          .digest('hex'),
      })),
    ],
  };
}

/** Everything that is missing at once. */
async function checkTools(): Promise<void> {
  const missing: string[] = [];
  for (const program of ['make', 'gcc-12', 'flex', 'bison', 'bc'] as const)
    if (!(await findProgram(program))) missing.push(program);
  for (const { file, debian } of kernelHeaders) if (!(await exists(file))) missing.push(debian);
  if (missing.length > 0)
    throw new UsageError(
      'missing-tool',
      `kernels are built with ${missing.join(', ')}, which ${missing.length === 1 ? 'is' : 'are'} not on this host: run 'loopanic setup', or install the packages`,
    );
}

/** Modules that a kernel is built with: what any scenario's guests may load, and its crash kernel. */
export function modulesToBuild({
  modules,
  optionalModules,
  captureModules,
}: Pick<KernelProfile, 'modules' | 'optionalModules' | 'captureModules'>): string[] {
  const family = allBugs().flatMap(({ module, transport, targets }) => [
    module.name,
    ...transportOf(transport).modules,
    ...targets.map(targetOf).flatMap((target) => [...target.modules, ...(target.optionalModules ?? [])]),
  ]);
  return [...new Set([...modules, ...optionalModules, ...captureModules, ...family, 'xfs', 'ext4'])];
}

/** The distribution's configuration with the modules that guests load, less reduced.config. */
async function configure(tree: string, base: Kernel, id: string): Promise<void> {
  await copyFile(base.config, join(tree, '.config'));
  const names = new Set<string>();
  for (const name of modulesToBuild(base.profile)) {
    const args = ['-d', base.modulesRoot, '-S', base.release, '--show-depends', '--ignore-install', name];
    const { stdout } = await host(await needProgram('modprobe'), args, { reject: false });
    for (const [, file = ''] of stdout.matchAll(/^insmod \S*\/(\S+?)\.ko/gm))
      names.add(file.replaceAll('-', '_'));
  }
  const list = join(tree, '.loopanic-modules');
  await writeFile(list, ['Module Size Used by', ...[...names].map((name) => `${name} 1 0`), ''].join('\n'));
  const make = await needProgram('make');
  const quiet = { cwd: tree, input: '\n'.repeat(1000) };
  await command(make, [`LSMOD=${list}`, 'localmodconfig'], quiet);
  await command(join(tree, 'scripts/kconfig/merge_config.sh'), ['-m', '.config', REDUCED], quiet);
  await command(make, ['olddefconfig'], quiet);
  await command(
    join(tree, 'scripts/config'),
    ['--set-str', 'LOCALVERSION', `-${id.replace(/[^\w.]/g, '-')}`],
    quiet,
  );
}

/** What is configured, but for the kernel's name. */
async function configOf(tree: string): Promise<string> {
  const text = await readFile(join(tree, '.config'), 'utf8');
  return text.replace(/^CONFIG_LOCALVERSION=.*$/m, '');
}

async function make(tree: string, update: (text: string) => void, signal: AbortSignal): Promise<void> {
  const child = host(await needProgram('make'), [`-j${availableParallelism()}`, 'bzImage', 'modules'], {
    cwd: tree,
    all: true,
    reject: false,
    buffer: false,
    cancelSignal: signal,
    env: { LC_ALL: 'C', KBUILD_BUILD_USER: 'loopanic', KBUILD_BUILD_HOST: 'loopanic' },
  });
  const said: string[] = [];
  let silent = false;
  let timer = setTimeout(() => {}, 0);
  for await (const line of child.iterable({ from: 'all' })) {
    clearTimeout(timer);
    timer = setTimeout(() => {
      silent = true;
      child.kill();
    }, SILENCE_SECONDS * 1000);
    said.push(String(line));
    if (said.length > 200) said.shift();
    update(String(line).trim());
  }
  clearTimeout(timer);
  const done = await child;
  if (signal.aborted) throw new InterruptedError();
  if (!done.failed) return;
  const error =
    said.find((line) => /\berror:/.test(line)) ??
    said.findLast((line) => /\*\*\*|Error/.test(line)) ??
    said.at(-1);
  throw new UsageError(
    'kernel-build-failed',
    silent
      ? `the kernel does not compile: nothing was heard for ${SILENCE_SECONDS} s`
      : `the kernel does not compile: ${error?.trim()}`,
  );
}

/** Files of a built tree that modules are built against, in place of the link to the tree. */
async function keepTree(tree: string, target: string): Promise<void> {
  await command('rm', ['-rf', target]);
  await mkdir(target, { recursive: true });
  const script = `cd "$1" && { find . -path ./Documentation -prune -o \\( -name 'Makefile*' -o -name 'Kconfig*' -o -name 'Kbuild*' \\) -print; find include scripts arch/x86/include tools/objtool tools/include tools/bpf/resolve_btfids arch/x86/module.lds arch/x86/kernel/asm-offsets.s 2>/dev/null \\( -type f -o -type l \\) ! -name '*.o' ! -name '*.cmd'; ls .config Module.symvers System.map; } | sort -u | cpio -pdm --quiet "$2"`;
  await command('sh', ['-c', script, 'sh', tree, target]);
}

/** Seconds that the last build of a kernel from this one took on this host; null if none was made. */
export async function lastBuildSeconds(from: string): Promise<number | null> {
  let last: { at: string; seconds: number } | null = null;
  for (const id of await presentIds()) {
    const { built, fetchedAt = '' } = (await presentKernel(id)) ?? {};
    if (built?.from === from && built.seconds > 0 && fetchedAt > (last?.at ?? ''))
      last = { at: fetchedAt, seconds: built.seconds };
  }
  return last?.seconds ?? null;
}

/** A name for a kernel that was not given one: what it is from, and its patches. */
export function builtId(from: string, patches: readonly string[]): string {
  const names = patches.map((file) => file.replace(/.*\//, '').replace(/\.(patch|diff)$/, ''));
  return `${from}-${names.join('-') || contentKey(from).slice(0, 6)}`;
}
