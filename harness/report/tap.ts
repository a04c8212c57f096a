import { stringify } from 'yaml';
import type { RunDocument } from '../results/run-schema.js';
import { cellName, repeatCommand, standing, tellingTrial } from './cell-state.js';

/** TAP version 14 (testanything.org): a test point for each cell, with YAML diagnostics where it is not as expected; skipped kernels are skipped points. */
export function tapReport(run: RunDocument): string {
  const lines = ['TAP version 14', `1..${run.cells.length + run.skipped.length}`];
  let number = 0;
  const describe = (text: string): string =>
    text.replaceAll('\\', '\\\\').replaceAll('#', '\\#').replaceAll('\n', ' ');
  for (const cell of run.cells) {
    const ok = standing(cell) === 'ok';
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
      warnings: cell.warnings,
      folder: trial?.folder ?? null,
      repeat: repeatCommand(cell, trial),
    };
    const yaml = stringify(diagnostics).trimEnd();
    lines.push('  ---', ...yaml.split('\n').map((line) => `  ${line}`), '  ...');
  }
  for (const { kernel, why } of run.skipped)
    lines.push(`ok ${++number} - ${describe(kernel)} # SKIP ${describe(why)}`);
  return `${lines.join('\n')}\n`;
}
