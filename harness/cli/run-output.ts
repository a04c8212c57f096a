import { EXIT } from '../base/errors.js';
import type { TrialOutcome } from '../outcome/outcome-schema.js';
import { repeatCommand, standing, tellingTrial, totals } from '../report/cell-state.js';
import type { RunCell, RunDocument } from '../results/run-schema.js';
import type { RunResult } from '../run/execute.js';
import { printResult } from './context.js';

/** What a run ends with on stdout. */
export function printRun(json: boolean, { document, folder }: RunResult): void {
  printResult(json, document, () => [
    ...document.cells.flatMap((cell) => cellLines(cell, document)),
    ...skippedLines(document.skipped),
    ...(document.cells.length > 1 ? [totals(document)] : []),
    `results: ${folder}`,
  ]);
}

/** What was left out: a line for each reason, with the kernels that it is true of. */
export function skippedLines(skipped: RunDocument['skipped']): string[] {
  const reasons = new Map<string, string[]>();
  for (const { kernel, why } of skipped) {
    const reason = why.replaceAll(kernel, 'ID');
    reasons.set(reason, [...(reasons.get(reason) ?? []), kernel]);
  }
  return [...reasons].map(([why, kernels]) => {
    const [only] = kernels;
    return `skipped: ${kernels.join(', ')}: ${kernels.length === 1 ? why.replaceAll('ID', only ?? '') : why}`;
  });
}

/** What people are told of a cell; `verdict` false: it comes on a line of its own. */
export function cellLines(cell: RunCell, run: RunDocument, verdict = true): string[] {
  const name = `${cell.kernel} ${cell.module} ${cell.scenario}`;
  const lines = cell.trials.map((trial) => `${name}: ${trialLine(trial)}`);
  const expectation =
    standing(cell, run) !== 'contradicted'
      ? ''
      : cell.expected
        ? `; expected ${cell.expected.verdict} (${cell.expected.why}): CONTRADICTED`
        : '; nothing was expected of it (see --no-expectation-ok): NOT EXPECTED';
  const told = (cell.verdict === 'panics' || cell.verdict === 'clean') && !cell.statistics?.gate;
  if (verdict && (cell.trials.length !== 1 || expectation || !told))
    lines.push(`${name}: verdict ${cell.verdict ?? 'none'}: ${cell.reason}${expectation}`);
  if (standing(cell, run) !== 'ok' && cell.trials.length > 0)
    lines.push(`  repeat: ${repeatCommand(cell, tellingTrial(cell))}`);
  for (const { trial, analysis, dump } of cell.trials) {
    if (dump)
      lines.push(
        `  trial ${trial}: dump: ${dump.method}, ${(dump.bytes / 2 ** 20).toFixed(0)} MiB${dump.kept ? '' : ', not kept'}`,
      );
    if (analysis) lines.push(`  trial ${trial}: analysis: ${analysis.text}`);
  }
  for (const warning of cell.warnings) lines.push(`${name}: warning: ${warning}`);
  return lines;
}

/** One line for one trial: outcome, object, length and seconds. */
function trialLine(trial: TrialOutcome): string {
  const { signature } = trial;
  const what = signature
    ? `${signature.object}, ${signature.length} bytes${signature.objects === null ? '' : ` (${signature.objects} objects)`}, ${signature.comm}`
    : trial.reason;
  const why = signature && trial.outcome !== 'reproduced' ? `: ${trial.reason}` : '';
  return `${trial.outcome}  ${what}${why}  ${trial.timings.outcome?.toFixed(1)} s (${trial.accel})`;
}

/** Exit code of a run: DESIGN.md's table. Without expectations, 0 means that every cell reached a verdict. */
export function exitCodeOf(document: RunDocument): number {
  if (document.interrupted) return EXIT.interrupted;
  if (document.cells.some((cell) => standing(cell, document) === 'contradicted')) return EXIT.unexpected;
  const decided = document.cells.every((cell) => standing(cell, document) !== 'undecided');
  return decided ? EXIT.ok : EXIT.noVerdict;
}
