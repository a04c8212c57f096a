import { execa, type Options } from 'execa';
import { firstLine, InfraError } from '../base/errors.js';

/**
 * Runs programs of this host, as execa does: in the C locale, whose messages are read here, and with --verbose each is told on stderr,
 * with its time and how it ended.
 */
export const host = execa({
  env: { LC_ALL: 'C' },
  verbose: process.argv.includes('--verbose') ? 'short' : 'none',
});

/**
 * Runs a host program to its end and returns its stdout. Throws InfraError with the program's own last words, which name the cause better
 * than an exit code does.
 */
export async function command(program: string, args: string[], options: Options = {}): Promise<string> {
  try {
    const { stdout } = await host(program, args, options);
    return typeof stdout === 'string' ? stdout : '';
  } catch (error) {
    throw commandError(program, error);
  }
}

/** What a failed program said, as an InfraError. */
export function commandError(program: string, error: unknown): InfraError {
  const said = String((error as { stderr?: unknown }).stderr ?? '')
    .trim()
    .split('\n');
  const words = said.find((line) => line.startsWith('E:')) ?? (said.at(-1) || firstLine(error));
  return new InfraError('command-failed', `${program.replace(/.*\//, '')} failed: ${words}`, error);
}
