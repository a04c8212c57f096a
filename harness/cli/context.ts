import type { Argv } from 'yargs';
import { type Progress, silentProgress, stderrProgress } from '../base/progress.js';
import { BUILD_DEFAULTS } from '../module/build.js';

/** What `-` stands for on the command line. */
export const STDIN = '/dev/stdin';

/** What every command is given beside its own arguments. */
export interface Context {
  /** Aborted by SIGINT and SIGTERM. */
  signal: AbortSignal;
}

/** Options that every command takes. */
export function globalOptions<T>(yargs: Argv<T>) {
  return yargs
    .option('json', {
      type: 'boolean',
      default: false,
      describe: 'one JSON document on stdout, text for people on stderr',
    })
    .option('verbose', { type: 'boolean', default: false, describe: 'say more; stack traces on errors' })
    .option('color', { type: 'boolean', default: true, describe: 'colours on a terminal (also NO_COLOR)' })
    .option('results', { type: 'string', default: 'results', describe: 'folder for runs' })
    .option('accel', {
      choices: ['auto', 'kvm', 'tcg'] as const,
      default: 'auto' as const,
      describe: 'how guests run; auto boots a probe before it trusts KVM',
    });
}

/** Options of every command that may have to build modules. */
export function buildOptions<T>(yargs: Argv<T>) {
  return yargs
    .option('builder', {
      choices: ['auto', 'docker', 'host'] as const,
      default: BUILD_DEFAULTS.builder,
      describe: "where modules are built; auto: here, if there is the kernel's compiler, else in a container",
    })
    .option('builder-image', {
      type: 'string',
      describe: 'tarball of the builder image, for hosts without a registry',
    })
    .option('build-seconds', {
      type: 'number',
      default: BUILD_DEFAULTS.buildSeconds,
      describe: 'a build that takes longer is stopped',
    });
}

/** `many`: several steps at a time, which one live line cannot show. */
export function progressFor(quiet = false, many = false): Progress {
  return quiet ? silentProgress : stderrProgress(many);
}

/** The command's result: a JSON document, or lines for people. This is all that goes to stdout. */
export function printResult(json: boolean, document: unknown, lines: () => string[]): void {
  const text = json ? JSON.stringify(document, null, 2) : lines().join('\n');
  if (text) process.stdout.write(`${text}\n`);
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
