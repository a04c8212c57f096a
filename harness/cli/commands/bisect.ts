import { EXIT, UsageError } from '../../base/errors.js';
import { catalogue } from '../../kernel/catalogue.js';
import { presentIds } from '../../kernel/store.js';
import type { BuildOptions } from '../../module/build.js';
import { executeRun } from '../../session/execute.js';
import type { DumpMethod } from '../../trial/plan.js';
import type { Accel } from '../../vm/qemu-args.js';
import { type Context, printResult, progressFor } from '../context.js';

export interface BisectArgs extends BuildOptions {
  good: string;
  bad: string;
  kernels: string[];
  module: string;
  scenario: string;
  image?: string | undefined;
  trials: number;
  retries: number;
  dump: DumpMethod;
  json: boolean;
  results: string;
  accel: 'auto' | Accel;
}

interface Step {
  kernel: string;
  verdict: string;
  run: string;
}

/**
 * `loopanic bisect --good ID --bad ID`: the first of an ordered list of kernels that panics. Only the sought signature counts as bad, only a clean cell as good; a kernel
 * without a verdict is passed over for its neighbour, as `git bisect skip` does. Works in both directions: a bad kernel may be the older one.
 */
export async function bisect(args: BisectArgs, { signal }: Context): Promise<number> {
  const known = Object.keys(await catalogue());
  const order =
    args.kernels.length > 0
      ? args.kernels
      : [...known, ...(await presentIds()).filter((id) => !known.includes(id))];
  const [good, bad] = [order.indexOf(args.good), order.indexOf(args.bad)];
  for (const [option, index] of [
    ['good', good],
    ['bad', bad],
  ] as const)
    if (index < 0)
      throw new UsageError(
        'bad-usage',
        `--${option} ${args[option]}: is not in the list of kernels: ${order.join(', ')}`,
      );
  if (good === bad) throw new UsageError('bad-usage', '--good and --bad are the same kernel');
  // From the good end to the bad one.
  const between = good < bad ? order.slice(good, bad + 1) : order.slice(bad, good + 1).reverse();
  const progress = progressFor();
  const steps: Step[] = [];
  const skipped = new Set<string>();
  let [low, high] = [0, between.length - 1];
  while (!signal.aborted) {
    const open = between.slice(low + 1, high).filter((id) => !skipped.has(id));
    const kernel = open[Math.floor(open.length / 2)];
    if (kernel === undefined) break;
    progress.line(
      `bisect: ${open.length} kernels left between ${between[low]} (good) and ${between[high]} (bad); trying ${kernel}`,
    );
    const { module, scenario, image, trials, retries, dump, results, accel } = args;
    const { document } = await executeRun(
      {
        command: 'bisect',
        cells: [{ kernel, module, scenario }],
        ...{
          image,
          trials,
          retries,
          dump,
          keepDumps: 'first' as const,
          results,
          accel,
          build: args,
          tolerant: true,
        },
      },
      signal,
      progress,
    );
    const verdict = document.cells[0]?.verdict ?? 'inconclusive';
    steps.push({ kernel, verdict, run: document.run });
    if (verdict === 'panics') high = between.indexOf(kernel);
    else if (verdict === 'clean') low = between.indexOf(kernel);
    else skipped.add(kernel);
  }
  const [lastGood, firstBad] = [between[low] ?? '', between[high] ?? ''];
  const unknown = between.slice(low + 1, high);
  const text =
    unknown.length === 0
      ? `first bad kernel: ${firstBad} (${lastGood} is good)`
      : `the first bad kernel is one of ${[...unknown, firstBad].join(', ')}: no verdict for ${unknown.join(', ')}`;
  printResult(args.json, { good: lastGood, bad: firstBad, undecided: unknown, steps }, () => [
    ...steps.map((step) => `${step.kernel}: ${step.verdict} (${step.run})`),
    text,
  ]);
  if (signal.aborted) return EXIT.interrupted;
  return unknown.length === 0 ? EXIT.ok : EXIT.noVerdict;
}
