import { basename } from 'node:path';
import { EXIT, UsageError } from '../../base/errors.js';
import { bugOf } from '../../bug/family.js';
import { type CatalogueEntry, catalogue, checkKernelId } from '../../kernel/catalogue.js';
import { presentIds, presentKernel } from '../../kernel/store.js';
import type { BuildOptions } from '../../module/build-options.js';
import { commitModules, isAncestor } from '../../module/git-range.js';
import type { RunCell } from '../../results/run-schema.js';
import { type BisectStep, bisectKernels, compareReleases, stepConfidence } from '../../run/bisect.js';
import { executeRun } from '../../run/execute.js';
import { checkNames, type RunRequest } from '../../run/prepare.js';
import { loadScenario } from '../../scenario/load-scenario.js';
import { type Context, printResult, progressFor } from '../context.js';

export interface BisectArgs extends BuildOptions, Pick<RunRequest, 'retries' | 'dump' | 'results' | 'accel'> {
  good?: string | undefined;
  bad?: string | undefined;
  git?: string | undefined;
  kernel: string;
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

/** What is searched: kernels with one module, or commits of one module on one kernel. */
interface Search {
  /** From the good end to the bad one. */
  between: string[];
  cellOf: (item: string) => { kernel: string; module: string };
  /** For people. */
  titleOf: (item: string) => string;
  /** For scripts. */
  nameOf: (item: string) => string;
}

/** Each is built in seconds. */
const MOST_COMMITS = 5000;

/**
 * `loopanic bisect --good ID --bad ID`: the first of an ordered list of kernels that panics, or the first commit of a tree whose module does. An
 * item is good only if its module survives and, on the same kernel, the positive control panics: a kernel that the trigger does not reach is
 * passed over. Works in both directions: a bad kernel may be the older one.
 */
export async function bisect(args: BisectArgs, { signal }: Context): Promise<number> {
  const { good, bad } = args;
  if (good === undefined || bad === undefined)
    throw new UsageError('bad-usage', 'bisect: give --good and --bad');
  if (args.git !== undefined && args.module !== 'stock')
    throw new UsageError('bad-usage', "--module is not for --git: the modules are the commits'");
  const { between, cellOf, titleOf, nameOf } =
    args.git === undefined
      ? await kernelSearch({ ...args, good, bad })
      : await commitSearch({ ...args, good, bad, git: args.git });
  const progress = progressFor();
  const { module, control, scenario, image, trials, retries, dump, results, accel } = args;
  const confidence = stepConfidence(args.confidence, between.length);
  const request = (cells: RunRequest['cells'], boots: number): RunRequest => ({
    command: 'bisect',
    cells,
    ...{ image, trials: boots, retries, dump, results, accel, confidence, build: args },
    // A module is built in seconds, and one boot of it is proof.
    byReading: args.git !== undefined,
    ...{ keepDumps: 'first' as const, tolerant: true, noExpectationOk: true },
  });
  const alone = (item: string): RunRequest => request([{ ...cellOf(item), scenario, isControl: true }], 1);
  const beside = (item: string): RunRequest =>
    request(
      [
        { ...cellOf(item), module: control, scenario, isControl: true },
        { ...cellOf(item), scenario, control: 0 },
      ],
      trials,
    );
  if (module === control && args.git === undefined)
    throw new UsageError(
      'bad-usage',
      `--module ${module}: is the positive control itself: give another one with --control`,
    );
  for (const item of between) await checkNames(beside(item));
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
          cell?.verdict === 'panics' || cell?.verdict === 'exposed' || cell?.provenBy === 'reading'
            ? 0
            : (cell?.statistics?.missChance ?? null),
      });
    },
    signal,
    (text) => progress.line(`bisect: ${text}`),
    args.git === undefined ? 'kernel' : 'commit',
    titleOf,
  );
  const document = {
    ...result,
    good: result.good && nameOf(result.good),
    bad: result.bad && nameOf(result.bad),
    undecided: result.undecided.map(nameOf),
    [args.git === undefined ? 'kernels' : 'commits']: between.map(nameOf),
    steps: steps.map((step) => ({ ...step, kernel: nameOf(step.kernel) })),
  };
  printResult(args.json, document, () => [
    ...steps.map(
      ({ kernel, verdict, reason, runs }) => `${titleOf(kernel)}: ${verdict}: ${reason} (${runs.join(', ')})`,
    ),
    result.text,
  ]);
  if (signal.aborted) return EXIT.interrupted;
  const sure = result.confidence >= args.confidence - 1e-9;
  return result.bad !== null && result.undecided.length === 0 && sure ? EXIT.ok : EXIT.noVerdict;
}

type Ends = BisectArgs & { good: string; bad: string };

async function kernelSearch(args: Ends): Promise<Search> {
  const between = await kernelsBetween(args);
  return {
    between,
    cellOf: (kernel) => ({ kernel, module: args.module }),
    titleOf: (kernel) => kernel,
    nameOf: (kernel) => kernel,
  };
}

/** The module at each commit between the two that changes it; the good one may be the newer. */
async function commitSearch({
  git,
  good,
  bad,
  kernel,
  scenario,
  kernels,
}: Ends & { git: string }): Promise<Search> {
  if (kernels.length > 0) throw new UsageError('bad-usage', '--kernels is not for --git: give one --kernel');
  await checkKernelId(kernel);
  const gate = bugOf((await loadScenario(scenario)).scenario.bug).module;
  const older = await isAncestor(git, good, bad);
  const range = older ? `${good}..${bad}` : `${bad}..${good}`;
  const { modules } = await commitModules(git, range, gate, MOST_COMMITS);
  if (modules.length < 2)
    throw new UsageError('bad-usage', `--git ${git}: ${gate.name} is the same at ${good} and at ${bad}`);
  const ordered = older ? modules : modules.reverse();
  const titles = new Map(
    ordered.map(({ dir, commit, subject }) => [dir, `${commit.slice(0, 12)} (${subject})`]),
  );
  return {
    between: ordered.map(({ dir }) => dir),
    cellOf: (dir) => ({ kernel, module: dir }),
    titleOf: (dir) => titles.get(dir) ?? dir,
    nameOf: (dir) => basename(dir),
  };
}

/**
 * From the good end to the bad one. Without --kernels: what the catalogue and this host have between the two, by version; of loopanic's
 * own builds the ends only.
 */
async function kernelsBetween({ good, bad, kernels }: Ends): Promise<string[]> {
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
