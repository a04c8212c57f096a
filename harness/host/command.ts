import { execa, type Options } from 'execa';
import { firstLine, InfraError } from '../base/errors.js';

/**
 * Runs a host program to its end and returns its stdout. Throws InfraError with the program's own last words, which name the cause better
 * than an exit code does.
 */
export async function command(program: string, args: string[], options: Options = {}): Promise<string> {
  try {
    const { stdout } = await execa(program, args, { env: { LC_ALL: 'C' }, ...options });
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
