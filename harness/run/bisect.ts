import { percent } from '../verdict/cell-verdict.js';
import type { Verdict } from '../verdict/verdict.js';

/** One kernel, or commit's module, that was tried. */
export interface BisectStep {
  kernel: string;
  verdict: Verdict;
  /** What the verdict rests on. */
  reason: string;
  /**
   * Largest share of such steps that call a kernel good whose module is as bad as its control; 0 for a panic, which proves itself; null
   * without a verdict.
   */
  missChance: number | null;
  /** Runs that showed it. */
  runs: string[];
}

export interface BisectResult {
  /** The last kernel that is known good, and the first that is known bad; null if an end is not what it was said to be. */
  good: string | null;
  bad: string | null;
  /** Kernels between the two that have no verdict. */
  undecided: string[];
  /** Of the whole search: the confidences of its steps, multiplied. 0 if it found nothing. */
  confidence: number;
  /** One line. */
  text: string;
}

/** Steps that can end with `good`, for so many kernels: the good end, and each halving. */
export function stepsOf(kernels: number): number {
  return 1 + Math.ceil(Math.log2(Math.max(2, kernels)));
}

/** Confidence that each step needs for the whole search to have it. */
export function stepConfidence(confidence: number, kernels: number): number {
  return confidence ** (1 / stepsOf(kernels));
}

/**
 * Finds the first bad kernel of a list that goes from a good one to a bad one. Both ends are tried first: what they are is not taken on
 * trust. `panics` and `exposed` are bad, and only `clean` is good; a kernel without a verdict is passed over for its neighbour, as `git bisect skip`
 * does. `onStep` is told before each one is tried. The list may be one of commits, too; `titleOf` is what people are told of one.
 */
export async function bisectKernels(
  between: readonly string[],
  verdictOf: (kernel: string) => Promise<Pick<BisectStep, 'verdict' | 'reason' | 'missChance'>>,
  signal: AbortSignal,
  onStep: (text: string) => void,
  kind: 'kernel' | 'commit' = 'kernel',
  titleOf: (item: string) => string = (item) => item,
): Promise<BisectResult> {
  const [good = '', bad = ''] = [between[0], between.at(-1)];
  let confidence = 1;
  for (const [kernel, name, wanted] of [
    [bad, 'bad', 'panics'],
    [good, 'good', 'clean'],
  ] as const) {
    onStep(`trying the ${name} end, ${titleOf(kernel)}`);
    const { verdict: found, reason, missChance } = await verdictOf(kernel);
    const verdict = found === 'exposed' ? 'panics' : found;
    const nothing = { good: null, bad: null, undecided: [...between], confidence: 0 };
    if (signal.aborted) return { ...nothing, text: 'interrupted' };
    confidence *= 1 - (missChance ?? 1);
    if (verdict !== wanted)
      return {
        ...nothing,
        text: `${titleOf(kernel)} was said to be ${name}, but is ${found}: ${reason}`,
      };
  }
  const skipped = new Set<string>();
  let [low, high] = [0, between.length - 1];
  while (!signal.aborted) {
    const open = between.slice(low + 1, high).filter((id) => !skipped.has(id));
    const kernel = open[Math.floor(open.length / 2)];
    if (kernel === undefined) break;
    onStep(
      `${open.length} ${kind}s left between ${titleOf(between[low] ?? '')} (good) and ${titleOf(between[high] ?? '')} (bad); trying ${titleOf(kernel)}`,
    );
    const { verdict, missChance } = await verdictOf(kernel);
    if (verdict === 'clean') confidence *= 1 - (missChance ?? 1);
    if (verdict === 'panics' || verdict === 'exposed') high = between.indexOf(kernel);
    else if (verdict === 'clean') low = between.indexOf(kernel);
    else skipped.add(kernel);
  }
  const [lastGood, firstBad] = [between[low] ?? '', between[high] ?? ''];
  const undecided = between.slice(low + 1, high);
  const found =
    undecided.length === 0
      ? `first bad ${kind}: ${titleOf(firstBad)} (${titleOf(lastGood)} is good)`
      : `the first bad ${kind} is one of ${[...undecided, firstBad].map(titleOf).join(', ')}: no verdict for ${undecided.map(titleOf).join(', ')}`;
  // Odds have a miss; a reading has none.
  const sure =
    confidence === 1
      ? `each ${kind} called good is so by a reading of the gate`
      : `the ${kind}s called good are so with at least ${percent(confidence)} confidence in all`;
  const text = `${found}; ${sure}`;
  return { good: lastGood, bad: firstBad, undecided, confidence, text };
}

/** Orders kernel releases by their leading numbers: 3.10.0-957.el7 before 3.10.0-957.27.2.el7 before 6.1.0-56-amd64. */
export function compareReleases(a: string, b: string): number {
  const numbers = (release: string): number[] =>
    (/^\d+(?:[.-]\d+)*/.exec(release)?.[0] ?? '').split(/[.-]/).map(Number);
  const [x, y] = [numbers(a), numbers(b)];
  for (let at = 0; at < Math.max(x.length, y.length); at++) {
    const difference = (x[at] ?? -1) - (y[at] ?? -1);
    if (difference !== 0) return difference;
  }
  return 0;
}
