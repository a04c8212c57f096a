import { stringify } from 'yaml';
import { harmless } from '../base/harmless.js';
import type { RunDocument } from '../results/run-schema.js';
import { cellName, moduleText, repeatCommand, standing, tellingTrial, unfinished } from './cell-state.js';

/**
 * TAP version 14 (testanything.org): a test point for each cell, with YAML diagnostics where it is not as expected; skipped kernels are
 * skipped points; a run that is not whole is a point that fails.
 */
export function tapReport(run: RunDocument): string {
  const partial = unfinished(run);
  const points = run.cells.length + run.skipped.length + (partial === null ? 0 : 1);
  const lines = ['TAP version 14', `1..${points}`];
  let number = 0;
  const describe = (text: string): string =>
    harmless(text.replace(/\s*[\r\n]+\s*/g, ' '))
      .replaceAll('\\', '\\\\')
      .replaceAll('#', '\\#');
  for (const cell of run.cells) {
    const ok = standing(cell, run) === 'ok';
    lines.push(
      `${ok ? 'ok' : 'not ok'} ${++number} - ${describe(`${cellName(cell)}: ${cell.verdict ?? 'not judged'}`)}`,
    );
    if (ok && cell.warnings.length === 0) continue;
    const trial = tellingTrial(cell);
    const diagnostics = {
      verdict: cell.verdict,
      expected: cell.expected?.verdict ?? null,
      why: cell.expected?.why ?? null,
      reason: cell.reason,
      module: moduleText(cell),
      warnings: cell.warnings,
      folder: trial?.folder ?? null,
      repeat: repeatCommand(cell, trial),
    };
    const yaml = stringify(diagnostics).trimEnd();
    lines.push('  ---', ...yaml.split('\n').map((line) => `  ${line}`), '  ...');
  }
  for (const { kernel, why } of run.skipped)
    lines.push(`ok ${++number} - ${describe(kernel)} # SKIP ${describe(why)}`);
  if (partial !== null) lines.push(`not ok ${++number} - ${describe(partial)}`);
  return `${lines.join('\n')}\n`;
}
