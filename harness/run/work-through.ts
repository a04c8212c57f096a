import type { RunCell, RunDocument } from '../results/run-schema.js';
import { controlOf, judgeInRun, survivorsWanted } from '../verdict/judge-run.js';
import { needsAnother } from '../verdict/stopping.js';
import { schedule, type Task } from './schedule.js';

/** How the cells of a run are worked through. */
export interface Work {
  /** Cells at a time. */
  slots: number;
  /** Survivors take this confidence; undefined: boots by number. */
  confidence: number | undefined;
  byReading: boolean;
  isStopped: () => boolean;
  /** A cell is about to have its first trial, or its first after those of an earlier run. */
  begin: (cell: RunCell) => Promise<void>;
  /**
   * Runs one more trial of a cell, adds it to it, and calls `judged` whenever more is known of it. False: the run was stopped, and nothing was
   * begun.
   */
  trial: (cell: RunCell, isAwaited: boolean, judged: () => void) => Promise<boolean>;
  /** A cell needs so many survivors, now that its control is known. */
  aimed: (cell: RunCell) => void;
  /** Something failed: what waits for its turn is not begun. */
  halt: () => void;
  /** A cell has all its trials. */
  finished: (cell: RunCell) => Promise<void>;
}

export function judge(document: RunDocument, cell: RunCell): void {
  Object.assign(cell, judgeInRun(document, cell));
}

/**
 * Gives each of `cells` trials until it is decided, or cannot be within its budget of trials that fail around the guest: controls before what
 * rests on them. After a failure no trial is begun, and it is thrown when those that were are over.
 */
export async function workThrough(
  document: RunDocument,
  cells: readonly RunCell[],
  work: Work,
): Promise<void> {
  const failures: unknown[] = [];
  const places = new Map(cells.map((cell, index) => [cell, index]));
  const runCell = async (cell: RunCell): Promise<void> => {
    const started = performance.now() - cell.durationSeconds * 1000;
    const judged = (): void => {
      aim(document, cell, work);
      judge(document, cell);
      cell.durationSeconds = Math.round(performance.now() - started) / 1000;
    };
    judged();
    while (!work.isStopped() && failures.length === 0 && needsAnother(document, cell)) {
      const isAwaited = cell.isControl || cell.trials.length > 0;
      if (!(await work.trial(cell, isAwaited, judged))) break;
    }
    await work.finished(cell);
  };
  const tasks = cells.map((cell): Task => {
    const control = controlOf(document, cell);
    return {
      after: (control && places.get(control)) ?? null,
      run: async () => {
        try {
          await work.begin(cell);
          await runCell(cell);
        } catch (error) {
          work.halt();
          throw error;
        }
      },
    };
  });
  await schedule(tasks, work.slots, failures);
}

/** Sets how many survivors the cell needs, now that its control is known. */
function aim(document: RunDocument, cell: RunCell, work: Work): void {
  const { confidence, byReading } = work;
  // Of a control that was cut short nothing is known yet.
  if (confidence === undefined || cell.control === null || work.isStopped()) return;
  // One that leaks may need some luck to panic, too.
  if (byReading && cell.expected?.verdict === 'panics') return;
  const wanted = survivorsWanted({ ...document, confidence }, cell);
  if (wanted === null || wanted === cell.wantedTrials) return;
  cell.wantedTrials = wanted;
  work.aimed(cell);
}
