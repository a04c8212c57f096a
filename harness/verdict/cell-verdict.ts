import { allBugs } from '../bug/family.js';
import { NO_PROBE } from '../guest/gate-reading.js';
import type { TrialOutcome } from '../outcome/outcome-schema.js';
import {
  COPIES_ALL,
  type GateSum,
  gateKind,
  leakText,
  missingLink,
  readingLacks,
  readingText,
  sumReadings,
} from './gate-proof.js';
import { detectable, missBound, type Rate, rateOf, survivorsNeeded } from './statistics.js';
import type { Verdict } from './verdict.js';

/** What a cell's trials amount to. Trials that count ended in a panic of the sought kind or survived. */
export interface CellStatistics {
  counted: number;
  panicked: number;
  survived: number;
  /** Infra errors and guests that never booted, about which no kernel complained: they were tried again. */
  retried: number;
  /** Trials that ended with their run, and of which nothing but their beginning is known. */
  cutOff: number;
  /** Hangs, other crashes, warnings, unreadable reports, panics whose dump shows another cause or whose guest was not as asked. */
  odd: number;
  /** Share of counted trials that panicked, with its 95 % interval. */
  rate: Rate | null;
  /**
   * Largest share of runs, over all panic probabilities, in which a module as bad as the positive control would be called clean; null if
   * the control says nothing of it.
   */
  missChance: number | null;
  /** What went through the gate; null if no trial has a whole reading. */
  gate: GateSum | null;
}

/** A panic that was seen; a reading of the gate; odds, of boots that survived; or nothing but that it survived. */
export type ProvenBy = 'panic' | 'reading' | 'statistics' | 'survival';

export interface CellJudgement {
  verdict: Verdict;
  /** One line: what the verdict rests on. */
  reason: string;
  /** What a reader must know before trusting it. */
  warnings: string[];
  /** What kind of evidence decides; null while nothing does. */
  provenBy: ProvenBy | null;
  statistics: CellStatistics;
}

/** What a cell's positive control showed. */
export interface ControlResult {
  statistics: CellStatistics;
  /** Settings, beside the module under test, in which the cell differs from it: its panic rate is then no measure of the cell. */
  differs: readonly string[];
}

/** What is asked of a cell. */
export interface CellGoal {
  /** Survivors wanted for `clean`. */
  trials: number;
  /** Of a verdict `clean` beside a comparable control, where the gate was not read. */
  confidence: number;
  /** A reading of the gate is proof; else statistics are asked for, whatever it says. */
  byReading: boolean;
  /** It is the positive control of others: it must panic. */
  isControl: boolean;
  /** Its own positive control, if it has one. */
  control: ControlResult | null;
}

/** A trial, and what the analysis of its dump concluded, if there was one. */
export type JudgedTrial = TrialOutcome & {
  analysis?: { sought: string; text: string } | null;
  host?: { name: string; qemu: string } | null;
};

/** Survivors that a cell needs for `confidence`, from its control's numbers; null if no number of boots would do. */
export function wantedBoots(control: CellStatistics, confidence: number): number | null {
  return survivorsNeeded(control.counted, confidence)[control.panicked] ?? null;
}

/** True if a trial says nothing because something around it failed, and no kernel complained: it may be tried again. */
export function isRetryable(
  trial: Pick<TrialOutcome, 'outcome' | 'evidence' | 'interrupted' | 'certain'>,
): boolean {
  const { outcome, evidence, certain } = trial;
  const failedAround = outcome === 'infra-error' || outcome === 'no-boot';
  return failedAround && !certain && evidence.length === 0 && !isCutOff(trial);
}

/** True if a trial ended with its run, or with its worker, and shows nothing. One that would end so every time is none. */
export function isCutOff({
  outcome,
  evidence,
  interrupted,
  certain,
}: Pick<TrialOutcome, 'outcome' | 'evidence' | 'interrupted' | 'certain'>): boolean {
  return interrupted && outcome === 'infra-error' && evidence.length === 0 && !certain;
}

/**
 * The verdict of a cell from its trials. One reproduced trial is enough for `panics`, if its dump does not show another cause. `exposed`:
 * none panicked, and a whole reading saw the gate leak. `clean` needs as many survivors as are wanted, and beside a control that differs
 * in nothing but the module either a reading that shows the gate closed, where the control's shows it open for every kind of page, or
 * enough survivors for the confidence; nothing else may have happened but trials that were tried again or cut off. `void`: a positive
 * control that neither panicked nor leaked, and every cell that depends on it. Everything else is `inconclusive`.
 */
export function judgeCell(trials: readonly JudgedTrial[], goal: CellGoal): CellJudgement {
  const statistics = count(trials, goal);
  const { counted, panicked, survived, retried, odd, gate } = statistics;
  const judge = (
    verdict: Verdict,
    reason: string,
    warnings: string[] = [],
    provenBy: ProvenBy | null = null,
  ): CellJudgement => ({
    verdict,
    provenBy,
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
      `${panicked} of ${counted} trials panicked with the sought signature${odd > 0 ? `; ${odd} more ended in another way` : ''}${gate && gate.leaked > 0 ? `; ${gateText(gate)}` : ''}`,
      [],
      'panic',
    );
  if (gate && gate.leaked > 0) {
    const leaky = trials.find((trial) => trial.gate?.lost === 0 && trial.gate.leaked > 0);
    const other = trials.find(
      (trial) => trial.outcome !== 'survived' && !isRetryable(trial) && !isCutOff(trial),
    );
    return judge(
      'exposed',
      `no panic, but ${gateText(gate)}; missing for a panic: ${leaky ? missingLink(leaky) : 'unknown'}${other ? `; trial ${other.trial}: ${other.outcome}: ${other.reason}` : ''}`,
      [],
      'reading',
    );
  }
  const control = goal.control?.statistics;
  if (control && control.panicked === 0 && !(control.gate && control.gate.leaked > 0))
    return judge(
      'void',
      `its positive control ${control.counted > 0 ? 'did not panic' : 'told nothing'}, so nothing follows`,
    );
  const survivors = trials.filter(({ outcome }) => outcome === 'survived');
  const lacks = goal.byReading ? readingLacks(survivors, control?.gate ?? null) : 'statistics were asked for';
  const needed = goal.control === null || lacks === null ? 0 : survivorsFor(goal.control, goal.confidence);
  if (odd > 0 || survived < goal.trials) {
    const failed =
      trials.find((trial) => trial.outcome !== 'survived' && !isRetryable(trial) && !isCutOff(trial)) ??
      trials.findLast((trial) => isRetryable(trial));
    const why = failed && isRefuted(failed) ? `but its dump: ${failed.analysis?.text}` : failed?.reason;
    if (failed) return judge('inconclusive', `trial ${failed.trial}: ${failed.outcome}: ${why}`);
    if (needed === null)
      return judge(
        'inconclusive',
        `its positive control panicked in ${control?.panicked} of ${control?.counted} boots: no number of survivors would show that a module is better`,
      );
    return judge('inconclusive', `${survived} of ${goal.trials} trials were run`);
  }
  if (goal.isControl)
    return judge(
      'void',
      `the positive control did not panic in ${survived} trials: what it should show cannot be shown here`,
    );
  if (needed === null || survived < needed)
    return judge(
      'inconclusive',
      `${survived} of ${counted} trials survived, which is too few${goal.byReading ? ` without a reading of the gate (${lacks})` : ''}: a module that panics as often as its positive control would be called clean in up to ${percent(statistics.missChance ?? 1)} of such runs; for ${percent(goal.confidence)} confidence ${needed === null ? 'no number of survivors is enough' : `${needed} survivors are needed`} beside ${control?.panicked} panics in ${control?.counted} boots of the control`,
    );
  const kind = gate && gateKind(gate);
  const shown = `${survived} of ${counted} trials survived their workload${gate ? `; ${readingText(gate)}` : whyUnread(trials)}`;
  const warnings = [
    ...tailPageWarnings(trials),
    ...unreadWarnings(trials),
    ...(kind === COPIES_ALL ? [`${COPIES_ALL}: no page at all reached ${gate?.probe}`] : []),
  ];
  if (!goal.control)
    return judge(
      'clean',
      shown,
      [
        ...(goal.isControl
          ? []
          : ['no positive control was run: nothing shows that this guest would have panicked']),
        ...warnings,
      ],
      'survival',
    );
  if (goal.control.differs.length > 0)
    return judge(
      'clean',
      `${shown}; a negative control: it differs from its positive control in ${goal.control.differs.join(', ')}, so the control's panic rate says nothing of a miss here`,
      warnings,
      'survival',
    );
  const proof = sumReadings(survivors);
  if (lacks === null && proof && control?.gate)
    return judge(
      'clean',
      `${readingText(proof)}, and ${survived === 1 ? 'it' : `${survived} boots`} survived, where its positive control let ${leakText(control.gate)} through${kind ? `: ${kind}` : ''}`,
      warnings,
      'reading',
    );
  return judge(
    'clean',
    `${shown}; ${guarantee(statistics.missChance ?? 1, survived)}`,
    warnings,
    'statistics',
  );
}

/** What a reading says, and what kind of gate that is. */
function gateText(gate: GateSum): string {
  const kind = gateKind(gate);
  return kind === null ? readingText(gate) : `${readingText(gate)}: ${kind}`;
}

/** What beside a comparable control so many survivors are worth. */
function guarantee(bound: number, survived: number): string {
  return `a module that panics as often as its positive control is called clean in at most ${percent(bound)} of such runs, however often that is; one that panics in ${percent(Math.ceil(detectable(survived) * 100) / 100)} of its boots or more is caught with 95 %`;
}

/** A control of another experiment asks for as many boots, but they are worth no number. */
function survivorsFor(control: ControlResult, confidence: number): number | null {
  return control.differs.length > 0 ? 0 : wantedBoots(control.statistics, confidence);
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

function count(trials: readonly JudgedTrial[], goal: CellGoal): CellStatistics {
  const number = (wanted: (trial: JudgedTrial) => boolean): number => trials.filter(wanted).length;
  const panicked = number((trial) => trial.outcome === 'reproduced' && !isRefuted(trial));
  const survived = number(({ outcome }) => outcome === 'survived');
  const retried = number(isRetryable);
  const cutOff = number(isCutOff);
  const counted = panicked + survived;
  const { control, confidence } = goal;
  const measured = control && control.differs.length === 0 && control.statistics.panicked > 0 && survived > 0;
  const promised = measured && survived >= (wantedBoots(control.statistics, confidence) ?? Infinity);
  return {
    counted,
    panicked,
    survived,
    retried,
    cutOff,
    odd: trials.length - counted - retried - cutOff,
    rate: rateOf(panicked, counted),
    missChance: measured
      ? Math.min(
          missBound(control.statistics.panicked, control.statistics.counted, survived),
          promised ? Number((1 - confidence).toPrecision(6)) : 1,
        )
      : null,
    gate: sumReadings(trials),
  };
}

/** Where a reading lost something, a reader should know. */
function unreadWarnings(trials: readonly TrialOutcome[]): string[] {
  const lossy = trials.find(({ outcome, gate }) => outcome === 'survived' && (gate?.lost ?? 0) > 0);
  return lossy?.gate
    ? [`${lossy.gate.lost} calls were lost in trial ${lossy.trial}: its reading of the gate is none`]
    : [];
}

/** Why the gate of a survivor was not read, where it could have been; `''` if it was, or nobody set a probe. */
function whyUnread(trials: readonly TrialOutcome[]): string {
  const why = trials.find(({ outcome, gate }) => outcome === 'survived' && !gate)?.gateWhy;
  return why == null || why === NO_PROBE ? '' : ` (its gate was not read: ${why})`;
}

/** A half-fix that forgets tail pages looks clean where slabs have none. */
function tailPageWarnings(trials: readonly TrialOutcome[]): string[] {
  const aboutPages = (id: string): boolean =>
    allBugs().some((bug) => bug.id === id && bug.copy === 'across-pages');
  const survivors = trials.filter(({ outcome, bug }) => outcome === 'survived' && !aboutPages(bug));
  const orders = survivors.map((trial) => trial.guest?.slabs['kmalloc-512']?.order);
  if (orders.some((order) => order === undefined))
    return ['the slab geometry is unknown: a fix that forgets tail pages might look clean here too'];
  return orders.includes(0)
    ? ['reached on slabs of one page each (order 0): a fix that forgets tail pages would look clean here too']
    : [];
}
