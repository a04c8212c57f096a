import { readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { UsageError } from '../base/errors.js';
import { isCompiled } from './is-compiled.js';

/** What a patch does to one file. */
export interface FileChange {
  path: string;
  isNew: boolean;
  added: string[];
}

/**
 * The files whose content a unified diff changes; paths without their first folder. Lines of a hunk are counted as its head says, so that
 * none is taken for a head.
 */
export function changedFiles(patch: string): FileChange[] {
  const changes: FileChange[] = [];
  let old = '';
  let now: FileChange | null = null;
  let [oldLines, newLines] = [0, 0];
  for (const line of patch.split('\n')) {
    if (oldLines > 0 || newLines > 0) {
      if (line.startsWith('+')) now?.added.push(line.slice(1));
      if (!line.startsWith('+')) oldLines -= line.startsWith('\\') ? 0 : 1;
      if (!line.startsWith('-')) newLines -= line.startsWith('\\') ? 0 : 1;
      continue;
    }
    const hunk = /^@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@/.exec(line);
    const from = /^--- (\S+)/.exec(line)?.[1];
    const to = /^\+\+\+ (\S+)/.exec(line)?.[1];
    if (hunk) {
      [oldLines, newLines] = [Number(hunk[1] ?? 1), Number(hunk[2] ?? 1)];
      if (now && !changes.includes(now)) changes.push(now);
    } else if (from !== undefined) old = from;
    else if (to !== undefined)
      now = {
        path: (to === '/dev/null' ? old : to).replace(/^[^/]*\//, ''),
        isNew: old === '/dev/null',
        added: [],
      };
  }
  return changes.filter(({ path }) => !path.split('/').includes('..'));
}

/**
 * Refuses patches that by their text alone change nothing that a kernel is compiled from: no file's content, or only new sources that
 * nothing names. Throws UsageError.
 */
export function checkChangesSomething(file: string, patch: string): void {
  const changes = changedFiles(patch);
  if (changes.length === 0)
    throw new UsageError(
      'empty-change',
      `${file}: changes the content of no file (it is empty, or about modes and names only): a kernel built with it would be the one that it is built from`,
    );
  const named = (change: FileChange): boolean => {
    const object = basename(change.path).replace(/\.[cS]$/, '.o');
    return changes.some(
      (other) =>
        other !== change &&
        other.added.some((line) => line.includes(object) || line.includes(basename(change.path))),
    );
  };
  const idle = changes.filter((change) => change.isNew && /\.[cS]$/.test(change.path) && !named(change));
  if (idle.length === changes.length)
    throw new UsageError(
      'empty-change',
      `${file}: adds ${idle.map(({ path }) => path).join(', ')}, which no Makefile is changed to name: nothing that is compiled changes`,
    );
}

/**
 * Refuses a change that this configuration compiles nothing of. `before`: the changed files' content before the patches, null for a new
 * file. `tree`: the patched and configured source. Throws UsageError.
 */
export async function checkIsCompiled(
  tree: string,
  before: ReadonlyMap<string, string | null>,
): Promise<void> {
  const why: string[] = [];
  for (const [path, old] of before) {
    const now = await readFile(join(tree, path), 'utf8').catch(() => null);
    if (old !== null && now !== null && withoutWords(old) === withoutWords(now))
      why.push(`${path}: only comments or blank lines differ`);
    else if (!(await isCompiled(tree, path))) why.push(`${path}: this configuration compiles nothing of it`);
    else return;
  }
  throw new UsageError(
    'empty-change',
    `the patches change nothing that is compiled: ${why.join('; ')}: a kernel built with them would be the one that it is built from`,
  );
}

/** C source without comments, blank lines and trailing blanks. */
export function withoutWords(text: string): string {
  // One that has no end goes on to the text's, and need not be looked for again.
  return text
    .replace(
      /\/\*[\s\S]*?(?:\*\/|$)|\/\/[^\n]*|("(?:\\.|[^"\\\n])*")/g,
      (_, quoted?: string) => quoted ?? ' ',
    )
    .split('\n')
    .map((line) => line.trim().replace(/\s+/g, ' '))
    .filter((line) => line !== '')
    .join('\n');
}
