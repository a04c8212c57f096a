import type { RunDocument } from '../results/run-schema.js';
import {
  cellName,
  contradicts,
  missText,
  rateText,
  repeatCommand,
  signOf,
  standing,
  tellingTrial,
  totals,
} from './cell-state.js';

const cellText = (text: string): string => text.replaceAll('|', '\\|').replaceAll('\n', ' ');

/** A summary for a CI job's page: a table of cells, then what went wrong with the command that repeats it. */
export function markdownReport(run: RunDocument): string {
  const lines = [
    `# loopanic ${run.command} ${run.run}`,
    '',
    `${totals(run)}. ${run.finishedAt ? '' : '**Not finished.** '}${run.interrupted ? '**Interrupted.** ' : ''}Started ${run.startedAt} on ${run.host.hostname} (${run.host.accel}), ${run.durationSeconds} s.`,
    '',
    '| | kernel | module | scenario | verdict | expected | panics (95 %) | chance of a miss |',
    '|---|---|---|---|---|---|---|---|',
    ...run.cells.map((cell) => {
      const row = [
        signOf(cell),
        cell.kernel,
        cell.module,
        cell.scenario,
        `${cell.verdict ?? 'not judged'}${contradicts(cell) ? ' **CONTRADICTED**' : ''}`,
        cell.expected?.verdict ?? '–',
        rateText(cell),
        missText(cell),
      ];
      return `| ${row.map(cellText).join(' | ')} |`;
    }),
  ];
  const bad = run.cells.filter((cell) => standing(cell) !== 'ok');
  if (bad.length > 0) lines.push('', '## What needs a look', '');
  for (const cell of bad) {
    const expected = cell.expected ? ` Expected ${cell.expected.verdict}: ${cell.expected.why}.` : '';
    lines.push(
      `- **${cellName(cell)}**: ${cell.verdict ?? 'not judged'}: ${cellText(cell.reason)}.${expected}`,
    );
    const trial = tellingTrial(cell);
    if (trial) lines.push(`  Repeat: \`${repeatCommand(cell, trial)}\``);
  }
  const warned = run.cells.filter(({ warnings }) => warnings.length > 0);
  if (warned.length > 0) lines.push('', '## Warnings', '');
  for (const cell of warned)
    for (const warning of cell.warnings) lines.push(`- ${cellName(cell)}: ${cellText(warning)}`);
  if (run.skipped.length > 0) lines.push('', '## Skipped: nothing follows for these', '');
  for (const { kernel, why } of run.skipped) lines.push(`- ${kernel}: ${cellText(why)}`);
  return `${lines.join('\n')}\n`;
}
