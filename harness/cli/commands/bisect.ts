import { EXIT, UsageError } from '../../base/errors.js';
import { type CatalogueEntry, catalogue, checkKernelId } from '../../kernel/catalogue.js';
import { presentIds, presentKernel } from '../../kernel/store.js';
import type { BuildOptions } from '../../module/build.js';
import type { RunCell } from '../../results/run-schema.js';
import { type BisectStep, bisectKernels, compareReleases } from '../../session/bisect.js';
import { executeRun } from '../../session/execute.js';
import { checkNames, type RunRequest } from '../../session/prepare.js';
import type { DumpMethod } from '../../trial/plan.js';
import type { Accel } from '../../vm/qemu-args.js';
import { type Context, printResult, progressFor } from '../context.js';

export interface BisectArgs extends BuildOptions {
  good: string;
  bad: string;
  kernels: string[];
  module: string;
  control: string;
  scenario: string;
  image?: string | undefined;
  trials: number;
  retries: number;
  dump: DumpMethod;
  json: boolean;
  results: string;
  accel: 'auto' | Accel;
}

/**
 * `loopanic bisect --good ID --bad ID`: the first of an ordered list of kernels that panics. A kernel is good only if its module survives and, on the same kernel, the positive
 * control panics: a kernel that the trigger does not reach is passed over. Works in both directions: a bad kernel may be the older one.
 */
export async function bisect(args: BisectArgs, { signal }: Context): Promise<number> {
  const between = await kernelsBetween(args);
  const progress = progressFor();
  const { module, control, scenario, image, trials, retries, dump, results, accel } = args;
  const request = (kernel: string, tried: string): RunRequest => ({
    command: 'bisect',
    cells: [{ kernel, module: tried, scenario, ...(tried === control ? { isControl: true } : {}) }],
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
  });
  for (const kernel of between)
    for (const tried of [module, control]) await checkNames(request(kernel, tried));
  const steps: BisectStep[] = [];
  const result = await bisectKernels(
    between,
    async (kernel) => {
      const step: BisectStep = { kernel, verdict: 'inconclusive', reason: '', runs: [] };
      steps.push(step);
      const run = async (tried: string): Promise<RunCell | undefined> => {
        const { document } = await executeRun(request(kernel, tried), signal, progress);
        step.runs.push(document.run);
        return document.cells[0];
      };
      const cell = await run(module);
      if (cell?.verdict) Object.assign(step, { verdict: cell.verdict, reason: cell.reason });
      if (step.verdict !== 'clean' || signal.aborted) return step;
      const positive = await run(control);
      if (positive?.verdict !== 'panics')
        Object.assign(step, {
          verdict: 'void',
          reason: `its positive control ${control}: ${positive?.reason}`,
        });
      return step;
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
  return result.bad !== null && result.undecided.length === 0 ? EXIT.ok : EXIT.noVerdict;
}

/** From the good end to the bad one. Without --kernels: what the catalogue and this host have between the two, by version; of loopanic's own builds the ends only. */
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
