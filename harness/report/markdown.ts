import { harmless } from '../base/harmless.js';
import type { RunDocument } from '../results/run-schema.js';
import {
  cellName,
  gateText,
  missText,
  moduleText,
  needsLook,
  proofText,
  rateText,
  repeatCommand,
  signOf,
  standing,
  tellingTrial,
  titleOf,
  totals,
  unfinished,
} from './cell-state.js';

/** Text that stays text in a table: no columns, no markup. */
export const cellText = (text: string): string =>
  harmless(text.replace(/\s*[\r\n]+\s*/g, ' ')).replace(/[\\|<>*_`[\]]/g, (sign) => `\\${sign}`);

/** A command as code, in one line; what it holds of backticks does not end it. */
export function codeSpan(text: string): string {
  const longest = Math.max(1, ...[...text.matchAll(/`+/g)].map(([run]) => run.length));
  const fence = '`'.repeat(longest + 1);
  return `${fence} ${harmless(text.replace(/\s*[\r\n]+\s*/g, ' '))} ${fence}`;
}

/** A summary for a CI job's page: a table of cells, then what went wrong with the command that repeats it. */
export function markdownReport(run: RunDocument): string {
  const partial = unfinished(run);
  const lines = [
    `# loopanic ${cellText(titleOf(run))} ${run.run}`,
    '',
    `${totals(run)}. ${partial === null ? '' : `**Not whole: ${cellText(partial)}.** `}Started ${run.startedAt} on ${cellText(run.host.hostname)} (${run.host.accel}), ${run.durationSeconds} s.`,
    '',
    '| | kernel | module | scenario | verdict | expected | panics (95 %) | gate | wrong clean, at most |',
    '|---|---|---|---|---|---|---|---|---|',
    ...run.cells.map((cell) => {
      const bold = standing(cell, run) === 'contradicted' ? ' **CONTRADICTED**' : '';
      const row = [
        signOf(cell, run),
        cell.kernel,
        cell.module,
        cell.scenario,
        [cell.verdict ?? 'not judged', proofText(cell)].filter(Boolean).join(', '),
        cell.expected?.verdict ?? '–',
        rateText(cell),
        gateText(cell),
        missText(cell),
      ];
      return `| ${row.map((text, index) => cellText(text) + (index === 4 ? bold : '')).join(' | ')} |`;
    }),
  ];
  const bad = needsLook(run).filter((cell) => standing(cell, run) !== 'ok');
  if (bad.length > 0) lines.push('', '## What needs a look', '');
  for (const cell of bad) {
    const expected = cell.expected
      ? ` Expected ${cell.expected.verdict}: ${cellText(cell.expected.why)}.`
      : '';
    lines.push(
      `- **${cellText(cellName(cell))}**: ${cell.verdict ?? 'not judged'}: ${cellText(cell.reason)}.${expected}`,
    );
    const trial = tellingTrial(cell);
    if (trial) lines.push(`  Repeat: ${codeSpan(repeatCommand(cell, trial))}`);
  }
  const modules = new Map(run.cells.map((cell) => [`${cell.kernel} ${cell.module}`, moduleText(cell)]));
  lines.push('', '## Modules', '');
  for (const [name, text] of modules) lines.push(`- ${cellText(name)}: ${cellText(text)}`);
  const warned = run.cells.filter(({ warnings }) => warnings.length > 0);
  if (warned.length > 0) lines.push('', '## Warnings', '');
  for (const cell of warned)
    for (const warning of cell.warnings) lines.push(`- ${cellText(cellName(cell))}: ${cellText(warning)}`);
  if (run.skipped.length > 0) lines.push('', '## Skipped: nothing follows for these', '');
  for (const { kernel, why } of run.skipped) lines.push(`- ${cellText(kernel)}: ${cellText(why)}`);
  return `${lines.join('\n')}\n`;
}
