/** One night of a cell: how many of its boots showed the bug, of those that tell. */
export interface Night {
  /** Panicked or exposed; clean; neither is known. */
  kind: 'bad' | 'good' | 'unknown';
  /** Boots that panicked or whose gate leaked. */
  bad: number;
  counted: number;
  /** A reading of the gate decided: then a single boot is proof. */
  byReading: boolean;
}

/** What became of a cell over its nights, oldest first. */
export interface Trend {
  /** `new`: bad, and was good; `fixed`: good, and was bad; `flaky`: what changed may be chance, or came and went; `steady`: never changed. */
  state: 'new' | 'fixed' | 'flaky' | 'steady' | 'unknown';
  /** Index of the first night of what it is now; null if that is unknown. */
  since: number | null;
  /** One line: the numbers behind it. */
  text: string;
}

/** A change with a smaller chance to be none is one. */
const SURE = 0.01;

/**
 * Tells a change from chance: the boots since the last change against those of the stretch before it (Fisher's exact test, two-sided). Readings of the
 * gate are no chance. Nights whose verdict is none are passed over.
 */
export function trendOf(nights: readonly Night[]): Trend {
  const known = nights.flatMap((night, index) => (night.kind === 'unknown' ? [] : [{ ...night, index }]));
  const last = known.at(-1);
  if (!last) return { state: 'unknown', since: null, text: 'no night with a verdict' };
  const changes = known.flatMap((night, at) => (at > 0 && known[at - 1]?.kind !== night.kind ? [at] : []));
  const from = changes.at(-1);
  const word = last.kind === 'bad' ? 'bad' : 'good';
  if (from === undefined)
    return {
      state: 'steady',
      since: known[0]?.index ?? null,
      text: `${word} in all ${known.length} nights: ${sums(known)}`,
    };
  const [now, before] = [known.slice(from), known.slice(changes.at(-2) ?? 0, from)];
  const chance = fisher(total(before), total(now));
  const isRead = now.some(({ byReading }) => byReading) && before.some(({ byReading }) => byReading);
  const since = known[from]?.index ?? null;
  const numbers = `${sums(before)} before, ${sums(now)} since; p ${chance < 0.001 ? '< 0.001' : `= ${chance.toFixed(3)}`}${isRead ? '; the gate was read in both' : ''}`;
  // One that keeps changing is believed once it has stayed.
  const isSure = (isRead || chance <= SURE) && (changes.length < 3 || now.length >= 3);
  if (!isSure)
    return {
      state: 'flaky',
      since,
      text: `changed ${changes.length} times in ${known.length} nights: ${numbers}`,
    };
  return { state: last.kind === 'bad' ? 'new' : 'fixed', since, text: numbers };
}

interface Total {
  bad: number;
  counted: number;
}

function total(nights: readonly Night[]): Total {
  return nights.reduce((sum, { bad, counted }) => ({ bad: sum.bad + bad, counted: sum.counted + counted }), {
    bad: 0,
    counted: 0,
  });
}

function sums(nights: readonly Night[]): string {
  const { bad, counted } = total(nights);
  return `${bad} of ${counted} boots in ${nights.length} night${nights.length === 1 ? '' : 's'}`;
}

/** Chance of a table as odd as this one, or odder, if both had the same rate (Fisher 1922). */
export function fisher(a: Total, b: Total): number {
  const [n, bad] = [a.counted + b.counted, a.bad + b.bad];
  const chanceOf = (inA: number): number =>
    Math.exp(choose(a.counted, inA) + choose(b.counted, bad - inA) - choose(n, bad));
  const seen = chanceOf(a.bad);
  let sum = 0;
  for (let inA = Math.max(0, bad - b.counted); inA <= Math.min(a.counted, bad); inA++) {
    const chance = chanceOf(inA);
    if (chance <= seen * (1 + 1e-7)) sum += chance;
  }
  return Math.min(1, sum);
}

/** Logarithm of the number of ways to take k of n. */
function choose(n: number, k: number): number {
  let sum = 0;
  for (let i = 1; i <= k; i++) sum += Math.log((n - k + i) / i);
  return sum;
}
