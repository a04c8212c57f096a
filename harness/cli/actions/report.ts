import { realpath, stat, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { EXIT, firstLine, hasErrno, UsageError } from '../../base/errors.js';
import { writeFileAtomic } from '../../base/files.js';
import { unfinished } from '../../report/cell-state.js';
import { compareRuns } from '../../report/compare.js';
import type { ReportFormat } from '../../report/formats.js';
import { makeReport } from '../../report/report.js';
import { RunFolder } from '../../results/run-folder.js';
import { printResult, table } from '../context.js';
import { STDIN } from '../stdin.js';

export interface ReportArgs {
  run: string;
  format: ReportFormat;
  output?: string | undefined;
  /** False with --no-expectation-ok (yargs turns it round): a panic needs no expectation. */
  expectationOk: boolean;
  json: boolean;
  results: string;
}

/**
 * `loopanic report RUN`: run.json told in another form. HTML goes into the run's folder if no file is named, all else to stdout; `--json`
 * tells where it is, or wraps it.
 */
export async function report(args: ReportArgs): Promise<number> {
  const folder = await RunFolder.open(args.results, args.run);
  const run = await folder.read();
  if (!args.expectationOk) run.request.noExpectationOk = true;
  const toStdout = args.output === undefined ? args.format !== 'html' : isStdout(args.output);
  const target = toStdout ? undefined : (args.output ?? join(folder.path, 'report.html'));
  if (target === '') throw new UsageError('bad-usage', '--output: is empty: name a file, or - for stdout');
  const text = await makeReport(
    run,
    args.format,
    folder.path,
    target === undefined ? process.cwd() : dirname(resolve(target)),
  );
  if (target === undefined) {
    const { format } = args;
    const asJson = args.json && format !== 'json' && format !== 'kcidb';
    process.stdout.write(asJson ? `${JSON.stringify({ run: folder.id, format, text }, null, 2)}\n` : text);
    return EXIT.ok;
  }
  // Only what was named may be written to through a link.
  const file = await (args.output === undefined
    ? writeFileAtomic(target, text).then(() => target)
    : writeReport(target, text)
  ).catch((error: unknown) => {
    throw new UsageError('bad-output', `--output ${target}: cannot be written (${firstLine(error)})`, error);
  });
  printResult(args.json, { run: folder.id, format: args.format, file }, () => [file]);
  return EXIT.ok;
}

/** yargs has made a file of the dash (context.ts). */
function isStdout(output: string): boolean {
  return ['-', STDIN, '/dev/stdout', '/dev/fd/1'].includes(output);
}

/** Regular files are replaced as a whole, behind links too; pipes and devices are written to. */
async function writeReport(target: string, text: string): Promise<string> {
  const file = await realpath(target).catch((error: unknown) => {
    if (hasErrno(error, 'ENOENT')) return resolve(target);
    throw error;
  });
  const known = await stat(file).catch(() => null);
  if (known && !known.isFile()) await writeFile(file, text);
  else await writeFileAtomic(file, text);
  return file;
}

/** `loopanic compare A B`: what changed since last night. Exit 1 if somebody has to look, 3 if a run is not whole. */
export async function compare(args: {
  before: string;
  after: string;
  json: boolean;
  results: string;
}): Promise<number> {
  const open = async (run: string) => (await RunFolder.open(args.results, run)).read();
  const [before, after] = [await open(args.before), await open(args.after)];
  const changes = compareRuns(before, after);
  const news = changes.filter(({ change }) => change !== 'same');
  const partial = [before, after].flatMap((run) => {
    const why = unfinished(run);
    return why === null ? [] : [`${run.run}: ${why}`];
  });
  printResult(args.json, { before: before.run, after: after.run, unfinished: partial, changes }, () => [
    ...partial,
    ...(before.matrix?.name === after.matrix?.name
      ? []
      : [
          `the runs are of other matrices: ${before.matrix?.name ?? before.command}, ${after.matrix?.name ?? after.command}`,
        ]),
    ...(news.length === 0
      ? [`no change in ${changes.length} cells`]
      : [
          ...table(news.map(({ change, cell, text }) => [change, cell, text])),
          `${changes.length - news.length} cells are the same`,
        ]),
  ]);
  if (changes.some(({ alarm }) => alarm)) return EXIT.unexpected;
  return partial.length > 0 ? EXIT.noVerdict : EXIT.ok;
}
