import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { firstLine, UsageError } from '../base/errors.js';
import { buildOnce, contentKey } from '../base/files.js';
import { cacheDir } from '../base/paths.js';
import type { GateModule } from '../bug/bug.js';
import { host } from '../host/command.js';
import { findProgram } from '../host/tools.js';
import { sourcePatterns } from '../kernel/build-tree.js';
import { GIT_SOURCES, ORIGIN_FILE, sourceIsPart } from './sources.js';

/** A module's source as one commit of a tree has it. */
export interface CommitModule {
  /** Folder with the module's files at their places: a module id. */
  dir: string;
  commit: string;
  subject: string;
}

/** What a range of commits has of a module. */
export interface ModuleRange {
  /** The module at the range's begin, and as each commit changes it, oldest first; the last is the range's end. */
  modules: CommitModule[];
  /** Sources and headers beside the module's that the range changes, too: an exchanged module does not bring them along. */
  elsewhere: string[];
}

const MOST_BYTES = 16 * 2 ** 20;

/**
 * The module's source in a range (`A..B`, A before B), along first parents; or at one commit, by default HEAD. Nothing of the tree is checked out, written
 * to or run. Throws UsageError, also for more than `most` commits that change the module.
 */
export async function commitModules(
  tree: string,
  rev: string | undefined,
  gate: GateModule,
  most: number,
): Promise<ModuleRange> {
  const git = await gitIn(tree);
  const range = rev ?? 'HEAD';
  const [, begin, to] = /^(.*[^.])\.\.([^.].*)?$/.exec(range) ?? [];
  const end = await idOf(git, begin === undefined ? range : to || 'HEAD');
  const start = begin === undefined ? null : await idOf(git, begin);
  if (start !== null && (await git('merge-base', start, end)) !== start)
    throw new UsageError('bad-usage', `--rev ${range}: ${begin} does not come before ${to || 'HEAD'}`);
  const places = sourcePatterns(gate).map((pattern) => `:(top,glob)${pattern}`);
  const between =
    start === null
      ? []
      : lines(
          await git(
            'rev-list',
            '--reverse',
            '--topo-order',
            '--first-parent',
            `${start}..${end}`,
            '--',
            ...places,
          ),
        );
  if (between.length > most)
    throw new UsageError(
      'bad-usage',
      `--rev ${range}: ${between.length} commits change ${gate.name}, and no more than ${most} are built: give a shorter range${most < 1000 ? ', or bisect it' : ''}`,
    );
  const modules: CommitModule[] = [];
  let before: string | null = null;
  // The end, whatever the list says: it is what was asked about.
  for (const commit of new Set([...(start === null ? [] : [start]), ...between, end])) {
    const files = await filesAt(git, commit, gate);
    if (files.length === 0)
      throw new UsageError(
        'no-source',
        `${tree}: ${commit.slice(0, 12)} has no ${gate.dir}/${gate.sources[0]}`,
      );
    const key = contentKey(...files.flatMap(({ path, content }) => [path, content]));
    // What leaves the module as it was is no other one.
    if (key === before) continue;
    before = key;
    const subject = await subjectOf(git, commit);
    const dir = cacheDir(...GIT_SOURCES, `${gate.name}-${key}`, commit.slice(0, 12));
    await buildOnce(dir, async (out) => {
      for (const { path, content } of files) {
        await mkdir(dirname(join(out, path)), { recursive: true });
        await writeFile(join(out, path), content);
      }
      await writeFile(join(out, ORIGIN_FILE), `commit ${commit.slice(0, 12)}: ${subject}\n`);
    });
    modules.push({ dir, commit, subject });
  }
  const changed = lines(
    start === null
      ? await git('diff-tree', '--root', '-m', '--first-parent', '--no-commit-id', '--name-only', '-r', end)
      : await git('diff-tree', '--name-only', '-r', start, end),
  );
  const elsewhere = changed.filter(
    (path) => /\.[chS]$|(?:^|\/)(?:Makefile|Kbuild|Kconfig)$/.test(path) && !sourceIsPart(path, gate),
  );
  return { modules, elsewhere };
}

/** True if one commit comes before another. Throws UsageError where neither comes before the other. */
export async function isAncestor(tree: string, one: string, other: string): Promise<boolean> {
  const git = await gitIn(tree);
  const [a, b] = [await idOf(git, one), await idOf(git, other)];
  const base = a === b ? null : await git('merge-base', a, b);
  if (base === a) return true;
  if (base === b) return false;
  throw new UsageError('bad-usage', `--git ${tree}: neither of ${one} and ${other} comes before the other`);
}

type Git = (...args: string[]) => Promise<string>;

const lines = (text: string): string[] => text.split('\n').filter(Boolean);

const idOf = (git: Git, rev: string): Promise<string> =>
  git('rev-parse', '--verify', '--end-of-options', `${rev}^{commit}`).catch((error: unknown) => {
    const message = firstLine(error).replace('Needed a single revision', `${rev}: is no commit of it`);
    throw new UsageError('bad-usage', message, error);
  });

/** First line of a commit's message; read as git keeps it, for `git log` runs what the tree's configuration names. */
async function subjectOf(git: Git, commit: string): Promise<string> {
  const text = await git('cat-file', 'commit', commit);
  const [subject = ''] = text.slice(text.indexOf('\n\n') + 2).split('\n');
  return Buffer.from(subject, 'latin1').toString('utf8').slice(0, 200);
}

/** What a caller's own git may have set: this is another repository. Nor is anything fetched, or put in an object's place. */
const ENVIRONMENT: Record<string, string | undefined> = {
  ...Object.fromEntries(
    [
      'DIR',
      'WORK_TREE',
      'INDEX_FILE',
      'OBJECT_DIRECTORY',
      'ALTERNATE_OBJECT_DIRECTORIES',
      'COMMON_DIR',
      'NAMESPACE',
    ].map((name) => [`GIT_${name}`, undefined]),
  ),
  GIT_NO_REPLACE_OBJECTS: '1',
  GIT_NO_LAZY_FETCH: '1',
  GIT_ALLOW_PROTOCOL: 'none',
  GIT_TERMINAL_PROMPT: '0',
};

async function gitIn(tree: string): Promise<Git> {
  const program = await findProgram('git');
  if (program === undefined) throw new UsageError('missing-tool', '--git: git is not installed');
  // Whoever owns the tree: only what git does itself is called, and nothing that its configuration names.
  const quiet = [
    ...['safe.directory=*', 'core.fsmonitor=false', 'core.hooksPath=/dev/null', 'log.showSignature=false'],
    ...['gpg.program=/bin/false', 'core.alternateRefsCommand=', 'core.sshCommand=/bin/false'],
  ].flatMap((setting) => ['-c', setting]);
  return async (...args) => {
    const done = await host(program, ['--no-optional-locks', ...quiet, '-C', tree, ...args], {
      reject: false,
      all: true,
      maxBuffer: MOST_BYTES,
      stripFinalNewline: args[0] !== 'cat-file',
      encoding: 'latin1',
      env: { LC_ALL: 'C', ...ENVIRONMENT } as Record<string, string>,
    });
    if (!done.failed) return done.stdout;
    const why = firstLine(new Error(done.all || String(done.shortMessage))).replace(/^fatal: /, '');
    throw new UsageError('bad-usage', `--git ${tree}: ${why}`);
  };
}

async function filesAt(
  git: Git,
  commit: string,
  gate: GateModule,
): Promise<{ path: string; content: Buffer }[]> {
  const names = lines(await git('ls-tree', '-r', '--name-only', '--full-tree', commit, `${gate.dir}/`));
  const files: { path: string; content: Buffer }[] = [];
  for (const path of names.filter((name) => sourceIsPart(name, gate)).sort())
    files.push({ path, content: Buffer.from(await git('cat-file', 'blob', `${commit}:${path}`), 'latin1') });
  return files.some(({ path }) => path === `${gate.dir}/${gate.sources[0]}`) ? files : [];
}
