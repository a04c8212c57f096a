import { join, resolve } from 'node:path';
import { EXIT, firstLine, UsageError } from '../../base/errors.js';
import { writeFileAtomic } from '../../base/files.js';
import type { Progress } from '../../base/progress.js';
import { readYaml } from '../../base/yaml-file.js';
import { catalogue } from '../../kernel/catalogue.js';
import { presentIds } from '../../kernel/store.js';
import type { BuildOptions } from '../../module/build-options.js';
import { moduleNames } from '../../module/module.js';
import { makeReport } from '../../report/report.js';
import { pruneRuns } from '../../results/retention.js';
import { executeRun } from '../../run/execute.js';
import { parseJobs } from '../../run/jobs.js';
import { planRun } from '../../run/plan-run.js';
import type { RunRequest } from '../../run/prepare.js';
import { parseShard, shardOf, wholeOf } from '../../run/shard.js';
import { loadMatrix, type MatrixCell, matrixFile, matrixNames } from '../../scenario/load-matrix.js';
import { scenarioNames } from '../../scenario/load-scenario.js';
import { matrixSchema } from '../../scenario/matrix-schema.js';
import { CONTROL_BOOTS, DEFAULT_CONFIDENCE } from '../../verdict/boots.js';
import { type Context, printResult, progressFor, table } from '../context.js';
import { exitCodeOf, printRun, skippedLines } from '../run-output.js';

export interface MatrixArgs
  extends BuildOptions,
    Pick<RunRequest, 'retries' | 'dump' | 'keepDumps' | 'results' | 'accel'> {
  file: string;
  kernel: string[];
  only: string[];
  list: boolean;
  resume?: string | undefined;
  image?: string | undefined;
  trials?: number | undefined;
  jobs?: string | undefined;
  queue?: string | undefined;
  listen?: string | undefined;
  label?: string | undefined;
  workerWait?: number | undefined;
  confidence?: number | undefined;
  /** False with --no-expectation-ok (yargs turns it round): a panic needs no expectation. */
  expectationOk: boolean;
  keepRuns?: number | undefined;
  seed?: number | undefined;
  shard?: string | undefined;
  json: boolean;
}

/**
 * By number if only --trials is given, or if no cell has a control; else by confidence, where the gate cannot be read or --confidence asks for
 * it.
 */
function bootsOf(
  args: MatrixArgs,
  cells: readonly MatrixCell[],
): Pick<RunRequest, 'trials' | 'uncontrolledTrials' | 'confidence' | 'byReading'> {
  const byReading = args.confidence === undefined;
  const byNumber = args.confidence === undefined && args.trials !== undefined;
  const controlled = cells.some(({ control }) => control !== undefined);
  if (byNumber || (args.confidence === undefined && !controlled)) {
    const trials = args.trials ?? 1;
    return { trials, uncontrolledTrials: trials, byReading };
  }
  return {
    trials: args.trials ?? CONTROL_BOOTS,
    uncontrolledTrials: args.trials ?? 1,
    confidence: args.confidence ?? DEFAULT_CONFIDENCE,
    byReading,
  };
}

/** `loopanic matrix ls`: the matrices that come with loopanic. */
async function matrixList(json: boolean): Promise<number> {
  const rows = await Promise.all(
    (await matrixNames()).map(async (name) => {
      const file = await matrixFile(name);
      const { summary = '' } = await readYaml(file, matrixSchema);
      return { name, summary, file };
    }),
  );
  printResult(json, rows, () =>
    table([['MATRIX', 'SUMMARY'], ...rows.map((row) => [row.name, row.summary])]),
  );
  return EXIT.ok;
}

/** A worker may be restarted meanwhile. */
const WORKER_WAIT_SECONDS = 600;

/** How a run gets its workers; undefined where trials run here. Throws UsageError. */
async function queueOf(
  { queue, jobs, listen, label, workerWait, accel }: MatrixArgs,
  signal: AbortSignal,
  progress: Progress,
): Promise<Parameters<typeof executeRun>[3]> {
  if (queue === undefined) {
    for (const [name, value] of Object.entries({ listen, label, 'worker-wait': workerWait }))
      if (value !== undefined) throw new UsageError('bad-usage', `--${name}: is for --queue`);
    return undefined;
  }
  if (jobs !== undefined)
    throw new UsageError('bad-usage', '--jobs: with --queue each worker has its own number');
  // Loaded where it is wanted: a quarter of a second.
  const [{ QueueRunner }, { isHere, readUrl }, { parseListen }, { checkLabel }] = await Promise.all([
    import('../../queue/coordinator.js'),
    import('../../queue/redis.js'),
    import('../../queue/coordinator-server.js'),
    import('../../queue/protocol.js'),
  ]);
  const url = await readUrl(queue);
  if (listen === undefined && !isHere(url))
    throw new UsageError(
      'bad-usage',
      '--queue: workers on other hosts must reach this run: give --listen with an address of this host (or 127.0.0.1, if they are all here)',
    );
  const options = {
    url,
    listen: parseListen(listen ?? '127.0.0.1'),
    label: label === undefined ? null : checkLabel(label),
    accel,
    patienceSeconds: workerWait ?? WORKER_WAIT_SECONDS,
  };
  return (run, earlier) => QueueRunner.start(run, { ...options, accel: earlier ?? accel }, signal, progress);
}

/** `loopanic matrix NAME|FILE`: every cell of a matrix file, against its expectations. */
export async function matrix(args: MatrixArgs, { signal }: Context): Promise<number> {
  if (args.file === 'ls') return matrixList(args.json);
  const file = await matrixFile(args.file);
  const listed = await catalogue();
  const present = await presentIds();
  const { name, cells, skipped } = await loadMatrix(file, {
    known: {
      kernels: [...new Set([...Object.keys(listed), ...present])],
      modules: await moduleNames(),
      scenarios: await scenarioNames(),
    },
    present,
    kernels: args.kernel.length > 0 ? args.kernel : undefined,
    only: args.only,
    stock: (kernel) => {
      const stock = listed[kernel]?.stock;
      return stock && stock.verdict !== 'unknown' ? { verdict: stock.verdict, why: stock.source } : undefined;
    },
  });
  const { image, retries, dump, keepDumps, results, accel, resume } = args;
  // Of the whole matrix: its parts are to be judged by one measure.
  const boots = bootsOf(args, cells);
  const shard = args.shard === undefined ? null : { ...parseShard(args.shard), whole: wholeOf(cells) };
  const mine = shard === null ? cells : shardOf(cells, shard);
  const request = {
    command: 'matrix',
    ...{
      cells: mine,
      image,
      ...boots,
      needControls: args.confidence !== undefined,
      noExpectationOk: !args.expectationOk,
      jobs: parseJobs(args.jobs ?? '1'),
      retries,
      dump,
      keepDumps,
      results,
      accel,
      resume,
      build: args,
      tolerant: true,
      skipped,
      matrix: { name, file: resolve(file), shard },
    },
    ...(args.seed === undefined ? {} : { seed: args.seed }),
  };
  if (args.list) {
    const plan = await planRun(request);
    printResult(args.json, { ...plan, skipped }, () => [
      ...table([
        ['KERNEL', 'MODULE', 'SCENARIO', 'BOOTS', 'EXPECTED', 'WHY'],
        ...plan.cells.map((row) => [
          row.kernel,
          row.module,
          row.scenario,
          `${row.sequential ? (row.expected === 'panics' ? 'until it panics' : `at least ${row.boots}`) : row.boots}${row.isControl ? ' (control)' : ''}`,
          row.expected ?? '-',
          row.why ?? '',
        ]),
      ]),
      plan.total,
      ...skippedLines(skipped),
    ]);
    return EXIT.ok;
  }
  const progress = progressFor();
  const result = await executeRun(request, signal, progress, await queueOf(args, signal, progress));
  printRun(args.json, result);
  const page = join(result.folder, 'report.html');
  await makeReport(result.document, 'html', result.folder, result.folder)
    .then((text) => writeFileAtomic(page, text))
    .then(() => progress.line(`report: ${page}`))
    // What it tells is in run.json: the result stands without it.
    .catch((error: unknown) => progress.line(`no report.html: ${firstLine(error)}`));
  if (args.keepRuns !== undefined && !signal.aborted)
    for (const run of await pruneRuns(results, args.keepRuns, { matrix: name, current: result.document.run }))
      progress.line(`removed the old run ${run} (--keep-runs ${args.keepRuns})`);
  return exitCodeOf(result.document);
}
