import type { TrialOutcome } from '../outcome/outcome-schema.js';
import type { Verdict } from '../scenario/matrix-schema.js';
import { bootsNeeded, missChance, type Rate, rateOf } from './statistics.js';

/** What a cell's trials amount to. Trials that count ended in a panic of the sought kind or survived. */
export interface CellStatistics {
  counted: number;
  panicked: number;
  survived: number;
  /** Infra errors and guests that never booted, which were tried again. */
  retried: number;
  /** Hangs, other crashes, warnings, unreadable reports, panics whose dump shows another cause. */
  odd: number;
  /** Share of counted trials that panicked, with its 95 % interval. */
  rate: Rate | null;
  /** Chance that a module as bad as the positive control would have looked clean too. */
  missChance: number | null;
}

export interface CellJudgement {
  verdict: Verdict;
  /** One line: what the verdict rests on. */
  reason: string;
  /** What a reader must know before trusting it. */
  warnings: string[];
  statistics: CellStatistics;
}

/** What is asked of a cell. */
export interface CellGoal {
  /** Survivors wanted for `clean`. */
  trials: number;
  /** They were reckoned from the control's rate, to reach a confidence. */
  sequential: boolean;
  /** It is the positive control of others: it must panic. */
  isControl: boolean;
  /** Its own positive control's numbers, if it has one. */
  control: CellStatistics | null;
}

/** A trial, and what the analysis of its dump concluded, if there was one. */
export type JudgedTrial = TrialOutcome & { analysis?: { sought: string; text: string } | null };

/** A sequential test has no end if its control hardly ever panics. */
export const MAX_BOOTS = 200;

/** Survivors that a cell needs for `confidence`, from its control's numbers; null if no number of boots would do. */
export function wantedBoots(control: CellStatistics, confidence: number): number | null {
  return bootsNeeded(control.panicked, control.counted, confidence, MAX_BOOTS);
}

/** True if a trial says nothing because something around it failed: it may be tried again. */
export function isRetryable({ outcome }: Pick<TrialOutcome, 'outcome'>): boolean {
  return outcome === 'infra-error' || outcome === 'no-boot';
}

/**
 * The verdict of a cell from its trials. One reproduced trial is enough for `panics`, if its dump does not show another cause. `clean` needs as many survivors as are wanted, and nothing else but
 * trials that were tried again. `void`: a positive control that never panicked, and every cell that depends on it. Everything else is `inconclusive`.
 */
export function judgeCell(trials: readonly JudgedTrial[], goal: CellGoal): CellJudgement {
  const statistics = count(trials, goal.control);
  const { counted, panicked, survived, retried, odd } = statistics;
  const judge = (verdict: Verdict, reason: string, warnings: string[] = []): CellJudgement => ({
    verdict,
    reason:
      retried > 0 && verdict !== 'inconclusive'
        ? `${reason} (${retried} more failed around the guest and were tried again)`
        : reason,
    warnings,
    statistics,
  });
  if (panicked > 0)
    return judge(
      'panics',
      `${panicked} of ${counted} trials panicked with the sought signature${odd > 0 ? `; ${odd} more ended in another way` : ''}`,
    );
  if (goal.control && goal.control.panicked === 0)
    return judge(
      'void',
      `its positive control ${goal.control.counted > 0 ? 'did not panic' : 'told nothing'}, so nothing follows`,
    );
  if (goal.control && goal.sequential && goal.trials > MAX_BOOTS)
    return judge(
      'inconclusive',
      `its positive control panicked in ${goal.control.panicked} of ${goal.control.counted} boots: more than ${MAX_BOOTS} boots would be needed`,
    );
  if (odd > 0 || survived < goal.trials) {
    const failed =
      trials.find((trial) => trial.outcome !== 'survived' && !isRetryable(trial)) ??
      trials.findLast(isRetryable);
    const why = failed && isRefuted(failed) ? `but its dump: ${failed.analysis?.text}` : failed?.reason;
    return failed
      ? judge('inconclusive', `trial ${failed.trial}: ${failed.outcome}: ${why}`)
      : judge('inconclusive', `${survived} of ${goal.trials} trials were run`);
  }
  if (goal.isControl)
    return judge(
      'void',
      `the positive control did not panic in ${survived} trials: what it should show cannot be shown here`,
    );
  const chance = statistics.missChance;
  const odds =
    chance === null
      ? ''
      : `; a module as bad as the positive control would have looked clean with chance ${percent(chance)}`;
  return judge(
    'clean',
    `${survived} of ${counted} trials survived their workload${odds}`,
    tailPageWarnings(trials),
  );
}

/** A chance for people: two significant digits, of what is missing to certainty where that is less. Never rounded to 0 or 100 %. */
export function percent(chance: number): string {
  const digits = (share: number): number => Number((share * 100).toPrecision(2));
  const shown = chance > 0.99 && chance < 1 ? Number((100 - digits(1 - chance)).toFixed(12)) : digits(chance);
  return `${shown} %`;
}

/** It crashed as sought by its log, but the dump shows another cause: it counts neither for nor against. */
export function isRefuted({ outcome, analysis }: JudgedTrial): boolean {
  return outcome === 'reproduced' && analysis?.sought === 'no';
}

function count(trials: readonly JudgedTrial[], control: CellStatistics | null): CellStatistics {
  const number = (wanted: (trial: JudgedTrial) => boolean): number => trials.filter(wanted).length;
  const panicked = number((trial) => trial.outcome === 'reproduced' && !isRefuted(trial));
  const survived = number(({ outcome }) => outcome === 'survived');
  const retried = number(isRetryable);
  const counted = panicked + survived;
  return {
    counted,
    panicked,
    survived,
    retried,
    odd: trials.length - counted - retried,
    rate: rateOf(panicked, counted),
    missChance:
      control && control.panicked > 0 && survived > 0
        ? missChance(control.panicked, control.counted, survived)
        : null,
  };
}

/** A half-fix that forgets tail pages looks clean where slabs have none. */
function tailPageWarnings(trials: readonly TrialOutcome[]): string[] {
  const survivors = trials.filter(({ outcome }) => outcome === 'survived');
  const orders = survivors.map((trial) => trial.guest?.slabs['kmalloc-512']?.order);
  if (orders.some((order) => order === undefined))
    return ['the slab geometry is unknown: a fix that forgets tail pages might look clean here too'];
  return orders.includes(0)
    ? ['reached on slabs of one page each (order 0): a fix that forgets tail pages would look clean here too']
    : [];
}
