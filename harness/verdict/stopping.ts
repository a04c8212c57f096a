import { isCutOff, isRetryable } from './cell-verdict.js';
import { type CellRecord, controlOf, isShown, type RunRecord, survivorsWanted } from './judge-run.js';

/** What of a run its stopping rule rests on, beside what its verdicts do. */
export type RunGoal<Cell extends CellRecord = CellRecord> = RunRecord<Cell> & {
  /** Trials of a cell that may fail around the guest and are then tried again. */
  retries: number;
};

/** True if a cell is to have one more trial: it is not decided, and could be within its budget of trials that fail around the guest. */
export function needsAnother<Cell extends CellRecord>(
  run: RunGoal<Cell>,
  cell: Cell & { verdict: string | null; expected?: { verdict: string } | undefined },
): boolean {
  const { retries, confidence } = run;
  const control = controlOf(run, cell) as (Cell & { verdict: string | null }) | undefined;
  if (control && control.verdict !== 'panics' && control.verdict !== 'exposed') return false;
  // What is certain to come again is not tried again.
  if (cell.trials.some((trial) => trial.certain)) return false;
  if (confidence !== null && cell.isControl && isShown(run, cell)) return false;
  // No number of survivors would do: not one boot is made.
  if (control && confidence !== null && survivorsWanted({ ...run, confidence }, cell) === null) return false;
  const cutOff = cell.trials.filter(isCutOff).length;
  const retried = cell.trials.filter(isRetryable).length;
  // It can no longer be clean; by number all boots are made, for what they show.
  if (retried > retries && confidence !== null) return false;
  // One panic says all, unless trials were asked for by number: then the rate is wanted.
  const decided = confidence !== null && control !== undefined && isEnough(cell);
  return !decided && cell.trials.length < cell.wantedTrials + Math.min(retried, retries) + cutOff;
}

/** A leak decides, too, unless a panic is expected: that may be a matter of luck. */
function isEnough({
  verdict,
  expected,
}: {
  verdict: string | null;
  expected?: { verdict: string } | undefined;
}): boolean {
  return verdict === 'panics' || (verdict === 'exposed' && expected?.verdict !== 'panics');
}
