import { randomBytes } from 'node:crypto';
import { readFileSync, rmSync } from 'node:fs';
import { link, lstat, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { hasErrno, UsageError } from '../base/errors.js';
import { isAlive, processSpace } from '../base/files.js';

const NAME = '.lock';
const held = new Set<string>();
// For ends that skip `await using`. A killed process leaves its lock: the next one sees that its owner is gone.
process.on('exit', () => {
  for (const path of held) rmSync(path, { force: true });
});

/** Takes a run's folder for this process, until the returned object is disposed of. Throws UsageError if another process has it. */
export async function lockRun(dir: string): Promise<AsyncDisposable> {
  const path = join(dir, NAME);
  const there = await lstat(path).catch(() => null);
  if (there !== null && !there.isFile())
    throw new UsageError('run-in-use', `${path}: is no file of loopanic's: remove it`);
  const own = `${path}.${process.pid}.${randomBytes(4).toString('hex')}`;
  try {
    // Written first and then linked: a lock is there whole or not at all.
    await writeFile(own, `${JSON.stringify({ ...processSpace(), pid: process.pid })}\n`, { mode: 0o600 });
    while (!(await linked(own, path))) {
      const owner = await readFile(path, 'utf8').catch(() => null);
      if (owner === null) continue;
      if (!isGone(owner))
        throw new UsageError(
          'run-in-use',
          `${dir}: another loopanic is at this run (${owner.trim()}); if that cannot be, remove ${path}`,
        );
      await takeAway(path, owner, `${own}.stale`);
    }
  } finally {
    await rm(own, { force: true });
  }
  held.add(path);
  return {
    async [Symbol.asyncDispose]() {
      await rm(path, { force: true });
      held.delete(path);
    },
  };
}

async function linked(from: string, to: string): Promise<boolean> {
  return link(from, to).then(
    () => true,
    (error: unknown) => {
      if (hasErrno(error, 'EEXIST')) return false;
      throw error;
    },
  );
}

/** Removes a stale lock; one that somebody else took in the meantime is put back. */
async function takeAway(path: string, stale: string, aside: string): Promise<void> {
  const moved = await rename(path, aside).then(
    () => true,
    () => false,
  );
  if (moved && (await readFile(aside, 'utf8')) !== stale) await linked(aside, path);
  await rm(aside, { force: true });
}

/** True while a process that may be alive has the run. */
export function isLocked(dir: string): boolean {
  try {
    return !isGone(readFileSync(join(dir, NAME), 'utf8'));
  } catch {
    return false;
  }
}

/** Gone with the host's last boot, or with its process. Of another host or container nothing can be told: such an owner counts as alive. */
function isGone(owner: string): boolean {
  try {
    const { host, boot, namespace, pid } = JSON.parse(owner);
    const here = processSpace();
    if (host !== here.host) return false;
    return boot !== here.boot || (namespace === here.namespace && !isAlive(Number(pid)));
  } catch {
    return false;
  }
}
