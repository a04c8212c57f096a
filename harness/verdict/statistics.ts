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

/**
 * Chance that `boots` boots of a module that is as bad as the positive control would all have survived, given that the control panicked in `panicked` of
 * `counted` boots. The control's panic probability is not known but estimated, and the estimate's own uncertainty is in it: with a uniform prior this is the
 * beta-binomial predictive probability of no panic, a product of (1 + survivors + i) / (2 + counted + i).
 */
export function missChance(panicked: number, counted: number, boots: number): number {
  let chance = 1;
  for (let i = 0; i < boots; i++) chance *= (1 + counted - panicked + i) / (2 + counted + i);
  return chance;
}

/** Fewest surviving boots after which the chance above is at most 1 − `confidence`; null if more than `limit` would be needed. */
export function bootsNeeded(
  panicked: number,
  counted: number,
  confidence: number,
  limit: number,
): number | null {
  if (panicked === 0) return null;
  // A hair of tolerance: 1 − 0.99 is not 0.01 in binary.
  const allowed = 1 - confidence + 1e-12;
  for (let boots = 1; boots <= limit; boots++)
    if (missChance(panicked, counted, boots) <= allowed) return boots;
  return null;
}
