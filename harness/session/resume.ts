import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { UsageError } from '../base/errors.js';
import { outcomeSchema } from '../outcome/outcome-schema.js';
import type { RunFolder } from '../results/run-folder.js';
import type { RunCell, RunDocument, RunTrial } from '../results/run-schema.js';

/**
 * Takes what an earlier, unfinished run has: its trials go into `document`, which was prepared anew for the same cells. A trial whose outcome was saved counts
 * even if run.json does not know it yet; one that was cut off is removed and comes again. Throws UsageError if the run was another one.
 */
export async function adoptTrials(folder: RunFolder, document: RunDocument): Promise<void> {
  const earlier = await folder.read();
  const other = difference(earlier, document);
  if (other) throw new UsageError('other-run', `--resume ${folder.id}: ${other}: start a new run`);
  document.startedAt = earlier.startedAt;
  document.durationSeconds = earlier.durationSeconds;
  document.resumedAt = [...earlier.resumedAt, new Date().toISOString()];
  for (const [index, cell] of document.cells.entries()) {
    const before = earlier.cells[index];
    cell.durationSeconds = before?.durationSeconds ?? 0;
    for (let number = 1; ; number++) {
      const known = before?.trials.find(({ trial }) => trial === number);
      const trial = known ?? (await savedTrial(folder, cell, number));
      if (!trial || trial.interrupted) break;
      cell.trials.push(trial);
    }
    // Whatever comes after was cut off.
    for (let number = cell.trials.length + 1; number <= cell.trials.length + 2; number++)
      await rm(join(folder.path, folder.trialPath(cell, number)), { recursive: true, force: true });
  }
}

/** What makes two documents two different runs, or null. */
function difference(earlier: RunDocument, now: RunDocument): string | null {
  const names = (document: RunDocument): string =>
    document.cells.map(({ kernel, module, scenario }) => `${kernel} ${module} ${scenario}`).join(', ');
  if (names(earlier) !== names(now)) return `its cells were ${names(earlier)}, and now are ${names(now)}`;
  const asked = (document: RunDocument): Record<string, unknown> => {
    const { request, confidence, retries, host } = document;
    return { ...request, confidence, retries, accel: host.accel };
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
    ] as const)
      if (JSON.stringify(before?.[key]) !== JSON.stringify(cell[key]))
        return `${cell.kernel} ${cell.module} ${cell.scenario} has another ${key} now`;
  }
  return null;
}

/** A trial that was saved after run.json was. */
async function savedTrial(folder: RunFolder, cell: RunCell, number: number): Promise<RunTrial | null> {
  const relative = folder.trialPath(cell, number);
  const text = await readFile(join(folder.path, relative, 'outcome.json'), 'utf8').catch(() => null);
  if (text === null) return null;
  const outcome = outcomeSchema.parse(JSON.parse(text));
  return { ...outcome, folder: relative, dump: null, analysis: null };
}
