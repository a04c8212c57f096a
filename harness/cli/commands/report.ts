import { dirname, join, resolve } from 'node:path';
import { EXIT, firstLine, UsageError } from '../../base/errors.js';
import { writeFileAtomic } from '../../base/files.js';
import { compareRuns } from '../../report/compare.js';
import { makeReport, type ReportFormat } from '../../report/report.js';
import { RunFolder } from '../../results/run-folder.js';
import { printResult, table } from '../context.js';

export interface ReportArgs {
  run: string;
  format: ReportFormat;
  output?: string | undefined;
  json: boolean;
  results: string;
}

/** `loopanic report RUN`: run.json told in another form. HTML goes into the run's folder if no file is named, all else to stdout. */
export async function report(args: ReportArgs): Promise<number> {
  const folder = await RunFolder.open(args.results, args.run);
  const run = await folder.read();
  const target = args.output ?? (args.format === 'html' ? join(folder.path, 'report.html') : undefined);
  const text = await makeReport(
    run,
    args.format,
    folder.path,
    target === undefined ? process.cwd() : dirname(resolve(target)),
  );
  if (target === undefined) {
    process.stdout.write(text);
    return EXIT.ok;
  }
  await writeFileAtomic(resolve(target), text).catch((error: unknown) => {
    throw new UsageError('bad-output', `--output ${target}: cannot be written (${firstLine(error)})`, error);
  });
  printResult(args.json, { run: folder.id, format: args.format, file: resolve(target) }, () => [
    resolve(target),
  ]);
  return EXIT.ok;
}

/** `loopanic compare A B`: what changed since last night. Exit 1 if a verdict did. */
export async function compare(args: {
  before: string;
  after: string;
  json: boolean;
  results: string;
}): Promise<number> {
  const [before, after] = await Promise.all(
    [args.before, args.after].map(async (run) => (await RunFolder.open(args.results, run)).read()),
  );
  if (!before || !after) return EXIT.noVerdict;
  const changes = compareRuns(before, after);
  const news = changes.filter(({ change }) => change !== 'same');
  printResult(args.json, { before: before.run, after: after.run, changes }, () =>
    news.length === 0
      ? [`no change in ${changes.length} cells`]
      : [
          ...table(news.map(({ change, cell, text }) => [change, cell, text])),
          `${changes.length - news.length} cells are the same`,
        ],
  );
  return changes.some(({ change }) => change === 'verdict') ? EXIT.unexpected : EXIT.ok;
}
