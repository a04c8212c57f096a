import { isAbsolute, normalize } from 'node:path';
import type { TrialOutcome } from '../outcome/outcome-schema.js';
import { judgeInRun } from '../verdict/judge-run.js';
import { RULES, type RunCell, type RunDocument, type RunTrial } from './run-schema.js';

/**
 * What in a run contradicts itself, or null. Its verdicts are derived anew from its trials and take the place of those that it has: a
 * file says what it likes. A run that was judged by other rules gets today's verdicts, and says so.
 */
export function contradictionIn(run: RunDocument): string | null {
  const names = new Set<string>();
  for (const cell of run.cells) {
    const name = `${cell.kernel} ${cell.module} ${cell.scenario}`;
    if (names.has(name)) return `the cell ${name} is there twice`;
    names.add(name);
    const wrong = inTrials(cell);
    if (wrong !== null) return `${name}: ${wrong}`;
  }
  for (const cell of run.cells) {
    if (cell.verdict === null && cell.trials.length === 0) continue;
    const derived = judgeInRun(run, cell);
    const { verdict, reason, statistics } = cell;
    Object.assign(cell, derived);
    if (run.rules !== RULES) {
      if (verdict !== derived.verdict)
        cell.warnings.push(
          `judged ${verdict ?? 'not at all'} by the rules of the loopanic that ran it: ${reason}`,
        );
      // What was not judged when its process was killed claims nothing.
    } else if (verdict !== null && verdict !== derived.verdict)
      return `${cell.kernel} ${cell.module} ${cell.scenario}: its verdict is ${verdict ?? 'not there'}, but its trials make it ${derived.verdict} (${derived.reason})`;
    else if (verdict !== null && JSON.stringify(statistics) !== JSON.stringify(derived.statistics))
      return `${cell.kernel} ${cell.module} ${cell.scenario}: its statistics are not those of its trials`;
  }
  return null;
}

function inTrials(cell: RunCell): string | null {
  const folders = new Set<string>();
  for (const [index, trial] of cell.trials.entries()) {
    if (trial.trial !== index + 1) return `trial ${trial.trial} stands where trial ${index + 1} belongs`;
    for (const key of ['kernel', 'module', 'scenario'] as const)
      if (trial[key] !== cell[key]) return `trial ${trial.trial} is of the ${key} ${trial[key]}`;
    const { moduleInfo } = trial;
    if (moduleInfo && JSON.stringify(moduleInfo) !== JSON.stringify(cell.moduleInfo))
      return `trial ${trial.trial} is of another build of the module`;
    if (trial.cellKey !== cell.key) return `trial ${trial.trial} is of another cell or program`;
    if (isAbsolute(trial.folder) || normalize(trial.folder).startsWith('..'))
      return `trial ${trial.trial} has its folder outside the run: ${trial.folder}`;
    if (folders.has(trial.folder)) return `two trials have the folder ${trial.folder}`;
    folders.add(trial.folder);
  }
  return null;
}

/** What an outcome.json says that run.json does not, or null. Timings grow while a dump is taken. */
export function outcomeDifference(saved: TrialOutcome, known: RunTrial): string | null {
  const { timings: _, ...own } = saved;
  for (const [key, value] of Object.entries(own))
    if (JSON.stringify(value) !== JSON.stringify(known[key as keyof RunTrial]))
      return key === 'outcome' ? `outcome ${value}, not ${known.outcome}` : `another ${key}`;
  return null;
}
