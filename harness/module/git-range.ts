import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { firstLine, UsageError } from '../base/errors.js';
import { buildOnce, contentKey } from '../base/files.js';
import { cacheDir } from '../base/paths.js';
import type { GateModule } from '../bug/bug.js';
import { host } from '../host/command.js';
import { findProgram } from '../host/tools.js';
import { ORIGIN_FILE, sourceIsPart } from './sources.js';

/** A module's source as one commit of a tree has it. */
export interface CommitModule {
  /** Folder with the module's files at their places: a module id. */
  dir: string;
  commit: string;
  subject: string;
  /** What the commit changes beside the module's files, which an exchanged module does not bring along. */
  elsewhere: string[];
}

/** A range that is longer is for bisect. */
const MOST_COMMITS = 200;
const MOST_BYTES = 16 * 2 ** 20;

/**
 * The module's source at each commit of a range (`A..B`) that changes it, oldest first, after that of the range's begin; or of one commit, by default
 * HEAD. Nothing of the tree is checked out, written to or run. Throws UsageError.
 */
export async function commitModules(
  tree: string,
  rev: string | undefined,
  gate: GateModule,
): Promise<CommitModule[]> {
  const git = await gitIn(tree);
  const range = rev ?? 'HEAD';
  const [, begin] = /^(.*[^.])\.\.([^.].*)?$/.exec(range) ?? [];
  const listed =
    begin === undefined
      ? [await git('rev-parse', '--verify', '--end-of-options', `${range}^{commit}`)]
      : (await git('rev-list', '--reverse', '--topo-order', '--end-of-options', range, '--', gate.dir)).split(
          '\n',
        );
  const first =
    begin === undefined ? [] : [await git('rev-parse', '--verify', '--end-of-options', `${begin}^{commit}`)];
  const commits = [...first, ...listed].filter(Boolean);
  if (commits.length > MOST_COMMITS)
    throw new UsageError(
      'bad-usage',
      `--rev ${range}: has ${commits.length} commits in ${gate.dir}; more than ${MOST_COMMITS} are not built one by one: bisect finds the first bad one`,
    );
  const modules: CommitModule[] = [];
  const seen = new Set<string>();
  for (const commit of commits) {
    const files = await filesAt(git, commit, gate);
    if (files.length === 0)
      throw new UsageError(
        'no-source',
        `${tree}: ${commit.slice(0, 12)} has no ${gate.dir}/${gate.sources[0]}`,
      );
    const key = contentKey(...files.flatMap(({ path, content }) => [path, content]));
    // What leaves the module as it was is no other one.
    if (seen.has(key)) continue;
    seen.add(key);
    const subject = (await git('log', '-1', '--format=%s', '--end-of-options', commit)).slice(0, 200);
    const changed = (
      await git('diff-tree', '--root', '--no-commit-id', '--name-only', '-r', '--end-of-options', commit)
    ).split('\n');
    const dir = cacheDir('modules', 'git', `${gate.name}-${key}`, commit.slice(0, 12));
    await buildOnce(dir, async (out) => {
      for (const { path, content } of files) {
        await mkdir(dirname(join(out, path)), { recursive: true });
        await writeFile(join(out, path), content);
      }
      await writeFile(join(out, ORIGIN_FILE), `commit ${commit.slice(0, 12)}: ${subject}\n`);
    });
    const elsewhere = changed.filter((path) => /\.[chS]$/.test(path) && !sourceIsPart(path, gate));
    modules.push({ dir, commit, subject, elsewhere });
  }
  return modules;
}

/** True if one commit comes before another. Throws UsageError where neither comes before the other. */
export async function isAncestor(tree: string, one: string, other: string): Promise<boolean> {
  const git = await gitIn(tree);
  const idOf = (rev: string): Promise<string> =>
    git('rev-parse', '--verify', '--end-of-options', `${rev}^{commit}`);
  const [a, b] = [await idOf(one), await idOf(other)];
  const base = await git('merge-base', a, b);
  if (base === a && a !== b) return true;
  if (base === b && a !== b) return false;
  throw new UsageError('bad-usage', `--git ${tree}: neither of ${one} and ${other} comes before the other`);
}

type Git = (...args: string[]) => Promise<string>;

async function gitIn(tree: string): Promise<Git> {
  const program = await findProgram('git');
  if (program === undefined) throw new UsageError('missing-tool', '--git: git is not installed');
  // Plumbing that runs nothing of the tree's own configuration, whoever owns it.
  const quiet = ['-c', 'safe.directory=*', '-c', 'core.fsmonitor=false', '-c', 'core.hooksPath=/dev/null'];
  return async (...args) => {
    const done = await host(program, ['--no-optional-locks', ...quiet, '-C', tree, ...args], {
      reject: false,
      all: true,
      maxBuffer: MOST_BYTES,
      stripFinalNewline: args[0] !== 'cat-file',
      encoding: 'latin1',
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
  const names = (await git('ls-tree', '-r', '--name-only', '--full-tree', commit, `${gate.dir}/`)).split(
    '\n',
  );
  const files: { path: string; content: Buffer }[] = [];
  for (const path of names.filter((name) => sourceIsPart(name, gate)).sort())
    files.push({ path, content: Buffer.from(await git('cat-file', 'blob', `${commit}:${path}`), 'latin1') });
  return files.some(({ path }) => path === `${gate.dir}/${gate.sources[0]}`) ? files : [];
}
