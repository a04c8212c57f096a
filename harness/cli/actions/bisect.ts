import { EXIT, UsageError } from '../../base/errors.js';
import { type CatalogueEntry, catalogue, checkKernelId } from '../../kernel/catalogue.js';
import { presentIds, presentKernel } from '../../kernel/store.js';
import type { BuildOptions } from '../../module/build-options.js';
import type { RunCell } from '../../results/run-schema.js';
import { type BisectStep, bisectKernels, compareReleases, stepConfidence } from '../../run/bisect.js';
import { executeRun } from '../../run/execute.js';
import { checkNames, type RunRequest } from '../../run/prepare.js';
import { type Context, printResult, progressFor } from '../context.js';

export interface BisectArgs extends BuildOptions, Pick<RunRequest, 'retries' | 'dump' | 'results' | 'accel'> {
  good: string;
  bad: string;
  kernels: string[];
  module: string;
  control: string;
  scenario: string;
  image?: string | undefined;
  /** Boots of a positive control. */
  trials: number;
  /** Of the whole search. */
  confidence: number;
  json: boolean;
}

/**
 * `loopanic bisect --good ID --bad ID`: the first of an ordered list of kernels that panics. A kernel is good only if its module survives
 * and, on the same kernel, the positive control panics: a kernel that the trigger does not reach is passed over. Works in both
 * directions: a bad kernel may be the older one.
 */
export async function bisect(args: BisectArgs, { signal }: Context): Promise<number> {
  const between = await kernelsBetween(args);
  const progress = progressFor();
  const { module, control, scenario, image, trials, retries, dump, results, accel } = args;
  const confidence = stepConfidence(args.confidence, between.length);
  const request = (kernel: string, cells: RunRequest['cells'], boots: number): RunRequest => ({
    command: 'bisect',
    cells: cells.map((cell) => ({ ...cell, kernel })),
    ...{ image, trials: boots, retries, dump, results, accel, confidence, build: args },
    ...{ keepDumps: 'first' as const, tolerant: true, noExpectationOk: true },
  });
  const alone = (kernel: string): RunRequest =>
    request(kernel, [{ kernel, module, scenario, isControl: true }], 1);
  const beside = (kernel: string): RunRequest =>
    request(
      kernel,
      [
        { kernel, module: control, scenario, isControl: true },
        { kernel, module, scenario, control: 0 },
      ],
      trials,
    );
  if (module === control)
    throw new UsageError(
      'bad-usage',
      `--module ${module}: is the positive control itself: give another one with --control`,
    );
  for (const kernel of between) await checkNames(beside(kernel));
  const steps: BisectStep[] = [];
  const result = await bisectKernels(
    between,
    async (kernel) => {
      const step: BisectStep = { kernel, verdict: 'inconclusive', reason: '', missChance: null, runs: [] };
      steps.push(step);
      const run = async (asked: RunRequest): Promise<RunCell | undefined> => {
        const { document } = await executeRun(asked, signal, progress);
        step.runs.push(document.run);
        return document.cells.at(-1);
      };
      // One boot first: a panic proves itself, and most bad kernels need no more.
      const first = await run(alone(kernel));
      if (first?.verdict === 'panics' || first?.verdict === 'exposed')
        return Object.assign(step, { verdict: first.verdict, reason: first.reason, missChance: 0 });
      if (signal.aborted) return step;
      const cell = await run(beside(kernel));
      return Object.assign(step, {
        verdict: cell?.verdict ?? 'inconclusive',
        reason: cell?.reason ?? 'it was not run',
        missChance:
          cell?.verdict === 'panics' || cell?.verdict === 'exposed'
            ? 0
            : (cell?.statistics?.missChance ?? null),
      });
    },
    signal,
    (text) => progress.line(`bisect: ${text}`),
  );
  printResult(args.json, { ...result, kernels: between, steps }, () => [
    ...steps.map(
      ({ kernel, verdict, reason, runs }) => `${kernel}: ${verdict}: ${reason} (${runs.join(', ')})`,
    ),
    result.text,
  ]);
  if (signal.aborted) return EXIT.interrupted;
  const sure = result.confidence >= args.confidence - 1e-9;
  return result.bad !== null && result.undecided.length === 0 && sure ? EXIT.ok : EXIT.noVerdict;
}

/**
 * From the good end to the bad one. Without --kernels: what the catalogue and this host have between the two, by version; of loopanic's
 * own builds the ends only.
 */
async function kernelsBetween({ good, bad, kernels }: BisectArgs): Promise<string[]> {
  if (good === bad) throw new UsageError('bad-usage', '--good and --bad are the same kernel');
  for (const id of [good, bad, ...kernels]) await checkKernelId(id);
  const order = kernels.length > 0 ? kernels : await byVersion([good, bad]);
  const twice = order.find((id, index) => order.indexOf(id) < index);
  if (twice !== undefined) throw new UsageError('bad-usage', `--kernels ${twice}: is there twice`);
  const [from, to] = [order.indexOf(good), order.indexOf(bad)];
  for (const [option, id, index] of [
    ['good', good, from],
    ['bad', bad, to],
  ] as const)
    if (index < 0)
      throw new UsageError('bad-usage', `--${option} ${id}: is not one of --kernels: ${order.join(', ')}`);
  return from < to ? order.slice(from, to + 1) : order.slice(to, from + 1).reverse();
}

async function byVersion(ends: string[]): Promise<string[]> {
  const known = await catalogue();
  const ids = [...new Set([...Object.keys(known), ...(await presentIds())])];
  const listed: { id: string; release: string }[] = [];
  for (const id of ids) {
    const kernel = await presentKernel(id);
    const own = known[id]?.origin === 'built' || kernel?.built !== undefined;
    if (!own || ends.includes(id)) listed.push({ id, release: kernel?.release ?? releaseOf(id, known) });
  }
  return listed
    .sort((a, b) => compareReleases(a.release, b.release) || a.id.localeCompare(b.id))
    .map(({ id }) => id);
}

/** What a kernel that is not here yet will be, as far as its name tells. */
function releaseOf(id: string, known: Record<string, CatalogueEntry>): string {
  const entry = known[id];
  if (entry?.origin === 'rpm') return entry.release;
  if (entry?.origin === 'debian') return entry.source.replace('linux-source-', '');
  return entry?.origin === 'built' ? releaseOf(entry.from, known) : '';
}
