import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { packageRoot } from '../../base/paths.js';

export interface CliResult {
  code: number;
  stdout: string;
  stderr: string;
}

const program = join(packageRoot, 'dist/cli/main.js');

/** Runs the real CLI as a user would. `env` replaces single variables. */
export async function loopanic(
  args: string[],
  options: {
    input?: string;
    env?: Record<string, string>;
    cwd?: string;
    timeoutSeconds?: number;
    /** Told the id of the process. */
    onStart?: (pid: number) => void;
  } = {},
): Promise<CliResult> {
  const child = execa(process.execPath, [program, ...args], {
    reject: false,
    input: options.input ?? '',
    env: options.env ?? {},
    cwd: options.cwd ?? packageRoot,
    timeout: (options.timeoutSeconds ?? 50) * 1000,
    maxBuffer: 64 * 2 ** 20,
  });
  if (child.pid !== undefined) options.onStart?.(child.pid);
  const result = await child;
  return { code: result.exitCode ?? -1, stdout: result.stdout, stderr: result.stderr };
}

/** Starts the real CLI and returns the child, for tests that interrupt it. `command` starts another one, or elsewhere. */
export function startLoopanic(
  args: string[],
  env: Record<string, string> = {},
  command: readonly string[] = [process.execPath, program],
) {
  const [first = '', ...rest] = command;
  return execa(first, [...rest, ...args], { reject: false, stdin: 'ignore', env, cleanup: true });
}

/** A golden log. */
export function goldenLog(name: string): Promise<string> {
  return readFile(join(packageRoot, 'harness/test/logs', name), 'latin1');
}
