import { lstat, mkdir, readdir, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { EXIT, UsageError } from '../../base/errors.js';
import { exists, writeFileAtomic } from '../../base/files.js';
import { presentIds, presentKernel } from '../../kernel/store.js';
import { HISTORY_DIR, historyOf } from '../../report/history-index.js';
import { historyPages } from '../../report/history-pages.js';
import { printResult, progressFor } from '../context.js';

/** `loopanic history`: what became of every cell, night by night, as pages in the results folder. */
export async function history(args: { results: string; json: boolean }): Promise<number> {
  const results = resolve(args.results);
  if (!(await exists(results)))
    throw new UsageError('bad-results', `--results ${args.results}: there is no such folder`);
  const dir = join(results, HISTORY_DIR);
  // A results folder may be somebody else's: nothing is written or removed through a link of it.
  for (const path of [dir, join(dir, 'cells'), join(dir, 'index.json'), join(dir, 'index.html')])
    if ((await lstat(path).catch(() => null))?.isSymbolicLink())
      throw new UsageError('bad-results', `${path}: is a link: remove it`);
  await mkdir(join(dir, 'cells'), { recursive: true, mode: 0o700 });
  const found = await historyOf(results, progressFor());
  const pages = historyPages(found, await fetchedKernels(), Date.now());
  for (const { path, text } of pages) await writeFileAtomic(join(dir, path), text);
  // Of cells that are in no run any more.
  const kept = new Set(pages.map(({ path }) => path));
  for (const name of await readdir(join(dir, 'cells')))
    if (OWN_PAGE.test(name) && !kept.has(`cells/${name}`))
      await rm(join(dir, 'cells', name), { force: true });
  const file = join(dir, 'index.html');
  printResult(
    args.json,
    { file, runs: found.runs.length, unread: found.unread, index: join(dir, 'index.json') },
    () => [
      ...found.unread.map(({ run, why }) => `${run}: not read: ${why}`),
      `${found.runs.length} runs: ${file}`,
    ],
  );
  return EXIT.ok;
}

/** Names that cells' pages have. */
const OWN_PAGE = /^\d+-[\w-]+\.html$/;

/** When the distributions' kernels of this host were fetched. */
async function fetchedKernels(): Promise<Map<string, string>> {
  const kernels = await Promise.all((await presentIds()).map(presentKernel));
  return new Map(
    kernels.flatMap((kernel) =>
      kernel?.origin === 'debian' ? [[kernel.id, kernel.fetchedAt] as const] : [],
    ),
  );
}
