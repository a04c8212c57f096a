import { harmless } from '../base/harmless.js';
import { type Progress, silentProgress, stderrProgress } from '../base/progress.js';

/** What every command is given beside its own arguments. */
export interface Context {
  /** Aborted by SIGINT and SIGTERM. */
  signal: AbortSignal;
}

/** Progress on stderr; `quiet`: none, where that belongs to a person's own view. */
export function progressFor(quiet = false): Progress {
  return quiet ? silentProgress : stderrProgress();
}

/** The command's result: a JSON document, or lines for people. This is all that goes to stdout. */
export function printResult(json: boolean, document: unknown, lines: () => string[]): void {
  // In JSON, C0 is escaped; what else acts on a terminal is, too: it means the same.
  const text = json ? escaped(JSON.stringify(document, null, 2)) : harmless(lines().join('\n'));
  if (text) process.stdout.write(`${text}\n`);
}

function escaped(text: string): string {
  return text.replace(/[\u007f-\u009f]/g, (sign) => `\\u00${sign.charCodeAt(0).toString(16)}`);
}

/** Lines of a table with aligned columns. */
export function table(rows: string[][]): string[] {
  const widths: number[] = [];
  for (const row of rows)
    for (const [index, cell] of row.entries()) widths[index] = Math.max(widths[index] ?? 0, cell.length);
  return rows.map((row) =>
    row
      .map((cell, index) => cell.padEnd(widths[index] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}
