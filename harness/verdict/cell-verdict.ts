import type { TrialOutcome } from '../outcome/outcome-schema.js';
import type { Verdict } from '../scenario/load-matrix.js';

export interface CellJudgement {
  verdict: Verdict;
  /** One line: what the verdict rests on. */
  reason: string;
  /** What a reader must know before trusting it. */
  warnings: string[];
}

/**
 * The verdict of a cell from its trials. One reproduced trial is enough for `panics`. `clean` needs every wanted trial to have
 * survived. Everything else is `inconclusive`: infra errors, hangs, other or unreadable crashes count neither for nor against.
 */
export function judgeCell(trials: readonly TrialOutcome[], wanted: number): CellJudgement {
  const count = (outcome: TrialOutcome['outcome']): number =>
    trials.filter((trial) => trial.outcome === outcome).length;
  const [reproduced, survived] = [count('reproduced'), count('survived')];
  if (reproduced > 0)
    return {
      verdict: 'panics',
      reason: `${reproduced} of ${trials.length} trials panicked with the sought signature`,
      warnings: [],
    };
  if (survived >= wanted && survived === trials.length)
    return {
      verdict: 'clean',
      reason: `${survived} of ${trials.length} trials survived their workload`,
      warnings: tailPageWarnings(trials),
    };
  const odd = trials.find((trial) => trial.outcome !== 'survived');
  return {
    verdict: 'inconclusive',
    reason: odd
      ? `trial ${odd.trial}: ${odd.outcome}: ${odd.reason}`
      : `${survived} of ${wanted} trials were run`,
    warnings: [],
  };
}

/** A half-fix that forgets tail pages looks clean where slabs have none. */
function tailPageWarnings(trials: readonly TrialOutcome[]): string[] {
  const order = (trial: TrialOutcome): number | undefined => trial.guest?.slabs['kmalloc-512']?.order;
  const flat = trials.some((trial) => order(trial) === 0);
  if (trials.some((trial) => order(trial) === undefined))
    return ['the slab geometry is unknown: a fix that forgets tail pages might look clean here too'];
  return flat
    ? ['reached on slabs of one page each (order 0): a fix that forgets tail pages would look clean here too']
    : [];
}
