import { cp, mkdir, readdir, readFile, realpath, stat, writeFile } from 'node:fs/promises';
import { dirname, join, relative, resolve } from 'node:path';
import { firstLine, UsageError } from '../base/errors.js';
import { exists } from '../base/files.js';
import { readGiven } from '../base/given-file.js';
import { cacheDir } from '../base/paths.js';
import type { GateModule } from '../bug/bug.js';
import { allBugs, koName } from '../bug/family.js';
import { host } from '../host/command.js';
import { needProgram } from '../host/tools.js';
import { sourceFiles, sourcePatterns } from '../kernel/build-tree.js';
import { readDkmsConf } from './dkms.js';
import { refuseUnread } from './makefile.js';
import { diffText, type Patch, readPatches } from './patch-file.js';

/** How a module's source differs from the kernel's own. */
export type Change =
  /** Not at all: what the kernel's own module is measured by. */
  | { kind: 'unchanged' }
  /** The first of these patches that fits is applied: the same change for kernels of other ages. */
  | { kind: 'first-fitting'; files: readonly string[] }
  /** All of these patches, in order. */
  | { kind: 'series'; files: readonly string[] }
  /** The user's own source: a folder with the module's files, or a kernel tree. */
  | { kind: 'source'; dir: string };

/** In a folder that loopanic made of a commit: where its files are from, in one line. */
export const ORIGIN_FILE = '.loopanic-origin';
/** Where such folders are, in the cache. */
export const GIT_SOURCES = ['modules', 'git'] as const;

const MAKEFILES = ['Kbuild', 'Makefile'] as const;
/** No file of them is larger, and no patch of them. */
const MOST_SOURCE_MIB = 16;
const MOST_PATCH_MIB = 64;
/** PATH_MAX of include/uapi/linux/limits.h. */
const LONGEST_PATH = 4096;
/** A folder that holds more is no module's. */
const MOST_FILES = 200;
const MOST_BYTES = 16 * 2 ** 20;

/** Content that a module built with this change depends on, for its cache key. */
export async function changeContent(change: Change, gate: GateModule): Promise<(string | Buffer)[]> {
  if (change.kind === 'unchanged') return ['unchanged'];
  if (change.kind !== 'source')
    return (await Promise.all(change.files.map(readPatches))).map((patches) => JSON.stringify(patches));
  const content: (string | Buffer)[] = [];
  for (const { name, path } of await ownFiles(change.dir, gate)) content.push(name, await readFile(path));
  return content;
}

/** What a change is called in results: the files that it is made of, in order, with the subject of a patch that has one. */
export async function changeNames(change: Change, gate: GateModule): Promise<string[]> {
  if (change.kind === 'unchanged') return [];
  if (change.kind === 'source') {
    // A folder of somebody else's may say what it likes.
    const isOurs = change.dir.startsWith(
      `${await realpath(cacheDir()).catch(cacheDir)}/${GIT_SOURCES.join('/')}/`,
    );
    const origin = isOurs ? await readFile(join(change.dir, ORIGIN_FILE), 'utf8').catch(() => null) : null;
    if (origin !== null) return [origin.trim()];
    return (await ownFiles(change.dir, gate)).map(({ name }) => name);
  }
  const patches = (await Promise.all(change.files.map(readPatches))).flat();
  return patches.map(({ name, subject }) => (subject === null ? name : `${name}: ${subject.slice(0, 200)}`));
}

/**
 * Makes the folder that is built, with its Makefile, from the kernel's own source (with the module's files at their places) and the
 * change. `scratch` is an empty folder to work in. Returns what is to be told of how it fitted. Throws UsageError if the change does not
 * fit, or holds something that would be left out.
 */
export async function prepareSources(
  change: Change,
  {
    source,
    release,
    gate,
    files,
  }: { source: string; release: string; gate: GateModule; files: readonly string[] },
  scratch: string,
  out: string,
): Promise<string[]> {
  await cp(source, scratch, { recursive: true });
  const notes: string[] = [];
  if (change.kind === 'first-fitting') await applyFirst(scratch, change.files, gate);
  if (change.kind === 'series')
    for (const file of change.files)
      for (const patch of await readPatches(file)) notes.push(...(await apply(scratch, patch, gate)));
  await mkdir(out, { recursive: true });
  for (const file of files) {
    const to = join(out, relative(gate.dir, file));
    await mkdir(dirname(to), { recursive: true });
    await cp(join(scratch, file), to);
  }
  if (change.kind === 'source') await layOver(change.dir, release, out, gate);
  if (gate.makefile !== 'own' && !(await hasMakefile(out)))
    await writeFile(join(out, 'Makefile'), gate.makefile);
  return notes;
}

async function hasMakefile(dir: string): Promise<boolean> {
  for (const name of MAKEFILES) if (await exists(join(dir, name))) return true;
  return false;
}

/** The user's files over the kernel's, and the patches that a dkms.conf names. */
async function layOver(dir: string, release: string, out: string, gate: GateModule): Promise<void> {
  for (const { name, path } of await ownFiles(dir, gate)) {
    await mkdir(dirname(join(out, name)), { recursive: true });
    await cp(path, join(out, name));
  }
  const { place, isTree } = await sourceFolder(dir, gate);
  if (!isTree) await refuseUnread(place, knowsExtraFlags(release));
  for (const patch of (await readDkmsConf(place, release))?.patches ?? [])
    await applyFlat(out, resolve(place, 'patches', patch), gate);
  for (const name of MAKEFILES) {
    const text = await readFile(join(out, name), 'utf8').catch(() => null);
    if (text === null) continue;
    const object = koName(gate).replace(/ko$/, 'o');
    if (!new RegExp(`(?<![\\w-])${object.replace('.', '\\.')}\\b`).test(text))
      throw new UsageError('foreign-makefile', `${join(place, name)}: does not build ${object}`);
    return;
  }
}

/** EXTRA_CFLAGS and its like are gone since 6.15. */
function knowsExtraFlags(release: string): boolean {
  const [major = 0, minor = 0] = release.split(/[.-]/).map(Number);
  return major < 6 || (major === 6 && minor < 15);
}

async function sourceFolder(dir: string, gate: GateModule): Promise<{ place: string; isTree: boolean }> {
  const [main = ''] = gate.sources;
  for (const [place, isTree] of [
    [dir, false],
    [join(dir, gate.dir), true],
  ] as const)
    if (await exists(join(place, main))) return { place, isTree };
  throw new UsageError('no-source', `${dir}: there is no ${main} in it`);
}

/**
 * Of a folder of its own everything; of a kernel tree the module's files, if its Makefile does nothing for them. In order of their names.
 */
async function ownFiles(dir: string, gate: GateModule): Promise<{ name: string; path: string }[]> {
  const { place, isTree } = await sourceFolder(dir, gate);
  if (isTree && gate.makefile === 'own')
    return (await sourceFiles(dir, gate)).map((file) => ({
      name: relative(gate.dir, file),
      path: join(dir, file),
    }));
  if (isTree) {
    await refuseTreeFlags(place, gate);
    const [main = ''] = gate.sources;
    const text = (await readGiven(join(place, main), MOST_SOURCE_MIB)).toString();
    const headers = [...text.matchAll(/^\s*#\s*include\s+"([\w./-]+)"/gm)].map(([, name = '']) => name);
    const names = [main, ...new Set(headers)].filter((name) => !name.includes('..'));
    const found: { name: string; path: string }[] = [];
    for (const name of names)
      if (await exists(join(place, name))) found.push({ name, path: join(place, name) });
    return found;
  }
  const files: { name: string; path: string }[] = [];
  let bytes = 0;
  for (const entry of await readdir(place, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    const name = relative(place, path);
    // What git keeps, and what an earlier build left.
    if (/(^|\/)\.|\.(?:o|ko|mod|cmd|order|symvers|a|mod\.c)$/.test(name) || entry.isDirectory()) continue;
    if (!entry.isFile())
      throw new UsageError('odd-source', `${path}: is neither a file nor a folder: copy what it stands for`);
    files.push({ name, path });
    bytes += (await stat(path)).size;
    if (files.length > MOST_FILES || bytes > MOST_BYTES)
      throw new UsageError(
        'big-source',
        `${dir}: holds more than ${MOST_FILES} files or ${MOST_BYTES / 2 ** 20} MiB: give the folder of the module alone`,
      );
  }
  return files.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** A tree's Makefile is for a whole folder of modules and is not used; what it sets for this module would be lost. */
async function refuseTreeFlags(place: string, gate: GateModule): Promise<void> {
  const name = koName(gate).replace(/\.ko$/, '');
  const objects = gate.sources.filter((file) => file.endsWith('.c')).map((file) => file.replace(/c$/, 'o'));
  const flags = new RegExp(
    `^\\s*(?:ccflags-y|subdir-ccflags-y|EXTRA_CFLAGS|CFLAGS_(?:REMOVE_)?(?:${[`${name}.o`, ...objects].join('|')})|${name}-(?:y|m|objs))\\s*[:+?]?=\\s*(.*)$`,
  );
  /** As every tree has it. */
  const usual = ['-I$(src)', ...objects];
  const isSet = (line: string): boolean => {
    const [, value] = flags.exec(line) ?? [];
    return value !== undefined && !usual.includes(value.trim());
  };
  for (const name of MAKEFILES) {
    const text = String(await readGiven(join(place, name), MOST_SOURCE_MIB).catch(() => ''));
    for (const [index, line] of text.split('\n').entries())
      if (isSet(line))
        throw new UsageError(
          'tree-flags',
          `${join(place, name)}:${index + 1}: ${line.trim()}: is not honoured for a whole tree: give a folder with the module's files and a Makefile of their own`,
        );
  }
}

/**
 * Checks that a patch changes one module and nothing else: what it did to another or to a shared header would not be tried.
 * Throws UsageError, with every file that is not the module's.
 */
export async function checkPatch(file: string, gate: GateModule): Promise<void> {
  const changes = (await readPatches(file)).flatMap((patch) => patch.changes);
  if (changes.length === 0) throw new UsageError('not-a-patch', `${file}: ${await whyNoPatch(file)}`);
  const foreign = changes.filter(({ path }) => placeOf(path, gate) === null);
  if (foreign.length > 0) {
    const names = [...new Set(foreign.map(({ path }) => path))];
    throw new UsageError(
      'foreign-patch',
      `${file}: changes ${names.join(', ')}, which is not part of ${gate.name}${whosePart(names[0] ?? '')} (${sourcePatterns(gate).join(', ')}): leave that out, or have a kernel built with it (validate --build-kernel)`,
    );
  }
  for (const { path, whole } of changes)
    if (whole === 'deleted' || whole === 'renamed')
      throw new UsageError(
        'foreign-patch',
        `${file}: ${path} is ${whole} by it: without it there is no module`,
      );
}

/** What a patch changes, by whose it is: the module's own files, and those of nobody in the family or of another module. */
export async function reachOf(
  file: string,
  gate: GateModule,
): Promise<{ patches: Patch[]; own: string[]; foreign: string[] }> {
  const patches = await readPatches(file);
  const paths = [...new Set(patches.flatMap(({ changes }) => changes.map(({ path }) => path)))];
  const isOwn = (path: string): boolean => placeOf(path, gate) !== null;
  return { patches, own: paths.filter(isOwn), foreign: paths.filter((path) => !isOwn(path)) };
}

/** Why a file holds no change. */
async function whyNoPatch(file: string): Promise<string> {
  const text = (await readGiven(file, MOST_PATCH_MIB)).toString('latin1');
  if (text.trim() === '') return 'is empty';
  if (/^@@@ /m.test(text)) return 'is a combined diff of a merge: give the diff against one parent';
  if (/^(?:old|new) mode |^similarity index /m.test(text)) return 'changes modes or names only';
  if (/^--- \S+\n\+\+\+ /m.test(text)) return 'is not a patch: its headers have no hunks behind them (@@)';
  return 'is not a patch: no --- and +++ lines with a hunk behind them';
}

/** A patch's path as one in the kernel's source: whatever folders stand before it there; null if it is not the module's. */
function placeOf(path: string, gate: GateModule): string | null {
  if (path.length > LONGEST_PATH) return null;
  const parts = path.split('/');
  for (let at = 0; at < parts.length; at++) {
    const suffix = parts.slice(at).join('/');
    if (sourceIsPart(suffix, gate)) return suffix;
  }
  // A patch that was made in the module's own folder.
  return parts.length === 1 && sourceIsPart(`${gate.dir}/${path}`, gate) ? `${gate.dir}/${path}` : null;
}

/** True of a file of any module that holds a bug's gate. */
export function isOfFamily(path: string): boolean {
  return allBugs().some(({ module }) => sourceIsPart(path, module));
}

/** Whose it is instead, for a message; empty if it is nobody's. */
function whosePart(path: string): string {
  const others = allBugs().filter(({ module }) => sourceIsPart(path, module));
  const [first] = others;
  if (!first) return '';
  const ids = others.map(({ id }) => id).join(' or ');
  return ` but of ${first.module.name}: give a scenario of ${ids}, such as --scenario ${first.shownBy}`;
}

/** True of a file of the kernel's source that the module is built from. */
export function sourceIsPart(path: string, gate: GateModule): boolean {
  return sourcePatterns(gate).some((pattern) =>
    new RegExp(`^${pattern.replaceAll('.', '\\.').replace('*', '[^/]*')}$`).test(path),
  );
}

const HOW = ['-p1', '--batch', '--forward', '--no-backup-if-mismatch'] as const;

/** Applies a patch whole, or not at all. Returns where its hunks fitted elsewhere than they say. Throws UsageError with the hunk that does not. */
async function apply(work: string, { name, changes }: Patch, gate: GateModule): Promise<string[]> {
  const program = await needProgram('patch');
  const placed = changes.map(({ path, hunks }) => ({ place: placeOf(path, gate) ?? path, hunks }));
  const input = Buffer.from(diffText(placed), 'latin1');
  const run = (...args: string[]) => host(program, args, { cwd: work, reject: false, all: true, input });
  const dry = await run(...HOW, '--fuzz=0', '--dry-run');
  if (!dry.failed) {
    const done = await run(...HOW, '--fuzz=0');
    if (done.failed) throw new UsageError('patch-refused', `${name}: ${firstLine(done.all)}`);
    return done.all
      .split('\n')
      .filter((line) => /succeeded at \d+ \(offset/.test(line))
      .map((line) => `${name}: ${line.trim()}`);
  }
  const fits = async (...args: string[]): Promise<boolean> => !(await run(...args, '--dry-run')).failed;
  const line = dry.all
    .split('\n')
    .find((text) => /FAILED|failed|[Cc]an't|malformed|[Rr]eversed|garbage/.test(text))
    ?.replace(/ -- saving rejects.*/, '');
  const why = (await fits('-p1', '--batch', '-R', '--fuzz=0'))
    ? "it is in this kernel's source already"
    : (await fits(...HOW, '--fuzz=2'))
      ? `${line}: it would fit with fuzz (patch -F2), which may put it where it does not belong: make it anew against this kernel`
      : (line ?? 'refused');
  throw new UsageError(
    'patch-refused',
    `does not apply to this kernel's ${gate.sources[0]}: ${name}: ${why}`,
  );
}

/** The first patch that fits. */
async function applyFirst(work: string, files: readonly string[], gate: GateModule): Promise<void> {
  const reasons: string[] = [];
  for (const file of files)
    try {
      for (const patch of await readPatches(file)) await apply(work, patch, gate);
      return;
    } catch (error) {
      if (!(error instanceof UsageError) || error.code !== 'patch-refused') throw error;
      reasons.push(error.message.replace(/^does not apply to .*?: /, ''));
    }
  throw new UsageError(
    'patch-refused',
    `does not apply to this kernel's ${gate.sources[0]}: ${reasons.join('; ')}`,
  );
}

/** A patch of a folder of one's own, whose files lie at its top. */
async function applyFlat(work: string, file: string, gate: GateModule): Promise<void> {
  const flat: GateModule = { ...gate, dir: '.', sources: ['*'] };
  for (const patch of await readPatches(file)) {
    const changes = patch.changes.map((change) => ({ ...change, path: change.path.replace(/.*\//, '') }));
    await apply(work, { ...patch, changes }, flat);
  }
}
