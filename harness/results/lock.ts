import { readFileSync, rmSync } from 'node:fs';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { hasErrno, UsageError } from '../base/errors.js';
import { isAlive, pidSpace } from '../base/files.js';

const NAME = '.lock';
const held = new Set<string>();
// For ends that skip `await using`. A killed process leaves its lock: the next one sees that its owner is gone.
process.on('exit', () => {
  for (const path of held) rmSync(path, { force: true });
});

/** Takes a run's folder for this process, until the returned object is disposed of. Throws UsageError if another process has it. */
export async function lockRun(dir: string): Promise<AsyncDisposable> {
  const path = join(dir, NAME);
  const mine = `${pidSpace()} ${process.pid}\n`;
  for (;;) {
    try {
      await writeFile(path, mine, { flag: 'wx', mode: 0o600 });
      break;
    } catch (error) {
      if (!hasErrno(error, 'EEXIST')) throw error;
      const owner = await readFile(path, 'utf8').catch(() => '');
      if (!isGone(owner))
        throw new UsageError(
          'run-in-use',
          `${dir}: another loopanic is at this run (${owner.trim() || 'it has just begun'}); if that cannot be, remove ${path}`,
        );
      await rm(path, { force: true });
    }
  }
  held.add(path);
  return {
    async [Symbol.asyncDispose]() {
      await rm(path, { force: true });
      held.delete(path);
    },
  };
}

/** True while a process that may be alive has the run. */
export function isLocked(dir: string): boolean {
  try {
    return !isGone(readFileSync(join(dir, NAME), 'utf8'));
  } catch {
    return false;
  }
}

/** Of another host or boot nothing can be told: such an owner counts as alive. */
function isGone(owner: string): boolean {
  const [space, pid] = owner.trim().split(' ');
  return space === pidSpace() && !isAlive(Number(pid));
}
