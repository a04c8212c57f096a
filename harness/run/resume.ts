import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';
import { firstLine, hasErrno, UsageError } from '../base/errors.js';
import { writeJson } from '../base/files.js';
import type { Progress } from '../base/progress.js';
import { DEFAULT_BUG } from '../bug/default-bug.js';
import type { TrialEnd } from '../outcome/decide.js';
import { outcomeSchema, type TrialOutcome } from '../outcome/outcome-schema.js';
import type { RunFolder } from '../results/run-folder.js';
import type { RunCell, RunDocument, RunTrial } from '../results/run-schema.js';
import { concludeTrial, type ReadingPlan, readingPlanSchema, TRIAL_FILES } from '../trial/conclude.js';

/**
 * Takes what an earlier, unfinished run has: its trials go into `document`, which was prepared anew for the same cells. A trial whose
 * outcome was not saved is judged by its logs: what a guest said counts, whatever became of the process that listened. Nothing is
 * removed; where nothing was found, the trial stays as one that was cut off, and the next number comes. Throws UsageError if the run was
 * another one, or is damaged.
 */
export async function adoptTrials(
  folder: RunFolder,
  document: RunDocument,
  progress: Progress,
): Promise<void> {
  const earlier = await folder.read();
  const other = difference(earlier, document);
  if (other) throw new UsageError('other-run', `--resume ${folder.id}: ${other}: start a new run`);
  document.startedAt = earlier.startedAt;
  document.durationSeconds = earlier.durationSeconds;
  document.resumedAt = [...earlier.resumedAt, new Date().toISOString()];
  // All of it is read before any of it is believed.
  const adopted: RunTrial[][] = [];
  for (const [index, cell] of document.cells.entries())
    adopted.push(await trialsOf(folder, cell, earlier.cells[index]?.trials ?? [], document.request.seed));
  for (const [index, cell] of document.cells.entries()) {
    cell.durationSeconds = earlier.cells[index]?.durationSeconds ?? 0;
    const known = earlier.cells[index]?.trials.length ?? 0;
    for (const trial of adopted[index] ?? []) {
      cell.trials.push(trial);
      if (trial.trial <= known) continue;
      await writeJson(join(folder.path, trial.folder, TRIAL_FILES.outcome), outcomeOf(trial));
      progress.line(
        `${cell.kernel} ${cell.module} ${cell.scenario} trial ${trial.trial}, which the earlier run did not come to record: ${trial.outcome}: ${trial.reason}`,
      );
    }
  }
}

/** The trials of a cell, by run.json and by what is on disk. */
async function trialsOf(
  folder: RunFolder,
  cell: RunCell,
  known: readonly RunTrial[],
  seed: number | null,
): Promise<RunTrial[]> {
  const damaged = (what: string): UsageError =>
    new UsageError(
      'bad-run',
      `--resume ${folder.id}: ${cell.kernel} ${cell.module} ${cell.scenario}: ${what}: the run is damaged; start a new one`,
    );
  const numbers = await folder.trialNumbers(cell);
  const trials: RunTrial[] = [];
  for (let number = 1; number <= Math.max(known.length, numbers.at(-1) ?? 0); number++) {
    if (!numbers.includes(number)) throw damaged(`the folder of trial ${number} is not there`);
    const relative = folder.trialPath(cell, number);
    const dir = join(folder.path, relative);
    const before = known[number - 1];
    const saved = await readSaved(dir, TRIAL_FILES.outcome, outcomeSchema, damaged);
    if (before && !saved) throw damaged(`${relative} has no ${TRIAL_FILES.outcome}`);
    // A crash report may have gone on after it was judged, while its dump was taken: that it was one is known.
    if (saved && ['survived', 'infra-error', 'no-boot'].includes(saved.outcome)) {
      const again = await outcomeByLogs(dir, saved, damaged);
      if (again === null && saved.outcome === 'survived')
        throw damaged(
          `${relative} has no ${TRIAL_FILES.plan} to read its logs by, so nothing shows that it survived`,
        );
      if (again !== null && again.outcome !== saved.outcome)
        throw damaged(
          `${relative}/${TRIAL_FILES.outcome} says ${saved.outcome}, but the trial's logs make it ${again.outcome}`,
        );
      if (again !== null && JSON.stringify(again.gate) !== JSON.stringify(saved.gate))
        throw damaged(
          `${relative}/${TRIAL_FILES.outcome} has another reading of the gate than the trial's logs`,
        );
    }
    if (before) {
      trials.push(before);
      continue;
    }
    const outcome = saved ?? (await cutOff(dir, cell, number, seed, damaged));
    const wrong = foreign(outcome, cell, number);
    if (wrong) throw damaged(`${relative}: ${wrong}`);
    const host = (await savedPlan(dir, damaged))?.host ?? null;
    trials.push({ ...outcome, folder: relative, host, dump: null, analysis: null });
  }
  return trials;
}

/** What a trial saved, by its schema; null if it did not come so far. */
async function readSaved<S extends z.ZodType>(
  dir: string,
  name: string,
  schema: S,
  damaged: (what: string) => UsageError,
): Promise<z.output<S> | null> {
  const file = join(dir, name);
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    if (hasErrno(error, 'ENOENT')) return null;
    throw error;
  });
  if (text === null) return null;
  try {
    return schema.parse(JSON.parse(text));
  } catch (error) {
    const [issue] = error instanceof z.ZodError ? error.issues : [];
    const why = issue ? `${issue.path.map(String).join('.')}: ${issue.message}` : firstLine(error);
    throw damaged(`${file} cannot be read (${why})`);
  }
}

const savedPlan = (dir: string, damaged: (what: string) => UsageError): Promise<ReadingPlan | null> =>
  readSaved(dir, TRIAL_FILES.plan, readingPlanSchema, damaged);

/** The outcome of a trial that is over, read from its logs once more; null for one that left no plan to read them by. */
async function outcomeByLogs(
  dir: string,
  { ended, timings }: TrialOutcome,
  damaged: (what: string) => UsageError,
): Promise<TrialOutcome | null> {
  const plan = await savedPlan(dir, damaged);
  if (plan === null || typeof ended.why !== 'string') return null;
  return concludeTrial(plan, dir, ended as TrialEnd, timings);
}

/** The outcome of a trial that was cut off, from its logs. */
async function cutOff(
  dir: string,
  cell: RunCell,
  number: number,
  firstSeed: number | null,
  damaged: (what: string) => UsageError,
): Promise<TrialOutcome> {
  const plan = await savedPlan(dir, damaged);
  if (plan !== null) return concludeTrial(plan, dir, { why: 'cut-off' }, {});
  // The plan is saved before QEMU starts.
  if ((await readdir(dir)).some((name) => !name.endsWith('.tmp')))
    throw damaged(`${dir} has logs, but no ${TRIAL_FILES.plan} to read them by`);
  return {
    schemaVersion: 1,
    kernel: cell.kernel,
    module: cell.module,
    ...(cell.moduleInfo ? { moduleInfo: cell.moduleInfo } : {}),
    scenario: cell.scenario,
    bug: String(cell.scenarioDefinition?.bug ?? DEFAULT_BUG),
    trial: number,
    cellKey: cell.key,
    seed: firstSeed === null ? 0 : firstSeed + number - 1,
    outcome: 'infra-error',
    reason: 'cut off before its guest was started',
    signature: null,
    corrupted: false,
    certain: false,
    interrupted: true,
    ended: { why: 'cut-off' },
    phase: 'boot',
    timings: {},
    accel: 'tcg',
    guest: null,
    gate: null,
    gateWhy: null,
    workload: null,
    evidence: [],
    warnings: [],
  };
}

/** What shows that an outcome is not of this trial of this cell, or null. */
function foreign(outcome: TrialOutcome, cell: RunCell, number: number): string | null {
  for (const key of ['kernel', 'module', 'scenario'] as const)
    if (outcome[key] !== cell[key]) return `its outcome is of the ${key} ${outcome[key]}`;
  if (outcome.trial !== number) return `its outcome is of trial ${outcome.trial}`;
  if (outcome.cellKey !== cell.key) return 'its outcome is of another build, plan or program';
  return null;
}

function outcomeOf({ folder: _, dump: __, analysis: ___, ...outcome }: RunTrial): TrialOutcome {
  return outcome;
}

/** What makes two documents two different runs, or null. */
function difference(earlier: RunDocument, now: RunDocument): string | null {
  const names = (document: RunDocument): string =>
    document.cells.map(({ kernel, module, scenario }) => `${kernel} ${module} ${scenario}`).join(', ');
  if (names(earlier) !== names(now)) return `its cells were ${names(earlier)}, and now are ${names(now)}`;
  const asked = (document: RunDocument): Record<string, unknown> => {
    const { request, confidence, retries, host, versions, rules } = document;
    return { ...request, confidence, retries, accel: host.accel, ...versions, rules };
  };
  const wanted = asked(now);
  for (const [key, value] of Object.entries(asked(earlier)))
    if (value !== wanted[key]) return `its ${key} was ${value}, not ${wanted[key]}`;
  for (const [index, cell] of now.cells.entries()) {
    const before = earlier.cells[index];
    for (const key of [
      'kernelInfo',
      'moduleInfo',
      'scenarioDefinition',
      'image',
      'scripts',
      'control',
      'key',
    ] as const)
      if (JSON.stringify(before?.[key]) !== JSON.stringify(cell[key]))
        return `${cell.kernel} ${cell.module} ${cell.scenario} has another ${key} now`;
  }
  return null;
}
