/** A share of boots and how sure it is. */
export interface Rate {
  /** k of n. */
  share: number;
  low: number;
  high: number;
}

const Z_95 = 1.959964;

/** Share of `k` in `n` trials with its 95 % Wilson score interval (Wilson 1927); null without trials. */
export function rateOf(k: number, n: number): Rate | null {
  if (n === 0) return null;
  const [share, z2] = [k / n, Z_95 ** 2];
  const middle = (share + z2 / (2 * n)) / (1 + z2 / n);
  const half = (Z_95 / (1 + z2 / n)) * Math.sqrt((share * (1 - share)) / n + z2 / (4 * n * n));
  // The ends are exact where rounding would leave a hair.
  return { share, low: k === 0 ? 0 : middle - half, high: k === n ? 1 : middle + half };
}

/** Panic probabilities per boot that the guarantee is checked for: 0.01 to 1, evenly in their logarithm. */
const PROBABILITIES = Array.from({ length: 401 }, (_, index) => 0.01 ** (1 - index / 400));
/** More survivors are never asked for. */
const MOST_SURVIVORS = 1000;

const memory = new Map<string, readonly (number | null)[]>();

/**
 * Survivors that a module needs to be called clean, for every number of panics of its positive control (the index, 0 to `controls`);
 * null: no number up to 1000 would do.
 *
 * The guarantee: let the control and the module under test panic with the same probability p at each boot. Then, whatever p from 0.01 to
 * 1 is, of the runs whose control panicked at least once, at most the share `1 − confidence` calls that module clean. With C(k) the
 * binomial probability of k panics in `controls` boots and m(k) the entry for k: Σ C(k)·(1 − p)^m(k) ≤ (1 − confidence)·(1 − (1 −
 * p)^controls) for every p. (So it holds of all runs too, and for smaller p as well.) Nothing is assumed about p, neither a prior nor the
 * control's estimate: an estimate from few boots is what made small controls look better than they are.
 *
 * The entries are found from `controls` panics downwards, each as small as its part of the allowance lets it be: the terms for different
 * k weigh at different p, so most of the allowance may go to each of them.
 */
export function survivorsNeeded(controls: number, confidence: number): readonly (number | null)[] {
  const key = `${controls} ${confidence}`;
  const known = memory.get(key);
  if (known) return known;
  const needed: (number | null)[] = Array.from({ length: controls + 1 }, () => null);
  const allowed = PROBABILITIES.map((p) => (1 - confidence) * (1 - (1 - p) ** controls) + 1e-15);
  const spent = PROBABILITIES.map(() => 0);
  for (let k = controls; k >= 1; k--) {
    const part = controls === 1 ? 1 : FIRST_PART + (1 - FIRST_PART) * ((controls - k) / (controls - 1));
    const chance = PROBABILITIES.map((p) => binomial(k, controls, p));
    const wrong = (at: number, m: number): number => (chance[at] ?? 0) * (1 - (PROBABILITIES[at] ?? 1)) ** m;
    const fits = (m: number): boolean =>
      allowed.every((most, at) => (spent[at] ?? 0) + wrong(at, m) <= most * part);
    // More survivors are never worse: halve the range.
    let [low, high] = [1, MOST_SURVIVORS + 1];
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if (fits(middle)) high = middle;
      else low = middle + 1;
    }
    if (low > MOST_SURVIVORS) continue;
    needed[k] = low;
    for (const at of PROBABILITIES.keys()) spent[at] = (spent[at] ?? 0) + wrong(at, low);
  }
  memory.set(key, needed);
  return needed;
}

/** Part of the allowance for a control that panicked at every boot; the others share the rest. */
const FIRST_PART = 0.6;

/** Probability of exactly `k` of `n`. */
function binomial(k: number, n: number, p: number): number {
  let ways = 1;
  for (let i = 1; i <= k; i++) ways *= (n - k + i) / i;
  return ways * p ** k * (1 - p) ** (n - k);
}

/** Shares of wrong `clean` that can be guaranteed: 0.0001 to 1. */
const LEVELS = Array.from({ length: 161 }, (_, index) => 10 ** (-4 + index / 40));

/**
 * The guarantee that a control with `panicked` of `controls` boots and `survivors` boots of the module give: the smallest share of wrong
 * `clean`, in the sense of survivorsNeeded, under whose rule so many survivors were enough. 1: none.
 */
export function missBound(panicked: number, controls: number, survivors: number): number {
  if (panicked === 0 || survivors === 0) return 1;
  const enough = (share: number): boolean => {
    const wanted = survivorsNeeded(controls, 1 - share)[panicked];
    return wanted != null && wanted <= survivors;
  };
  // Not the first that is enough: a rule for a larger share must say clean too.
  return LEVELS[LEVELS.findLastIndex((share) => !enough(share)) + 1] ?? 1;
}

/**
 * How often per boot a module must panic at least to have been caught with probability `power` in so many boots: 1 − (1 −
 * power)^(1/boots).
 */
export function detectable(boots: number, power = 0.95): number {
  return boots === 0 ? 1 : 1 - (1 - power) ** (1 / boots);
}
