import { createHash, randomBytes } from 'node:crypto';
import { readFileSync, rmSync } from 'node:fs';
import { access, mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { cacheDir } from './paths.js';

/** Writes a file so that a reader sees the old content or the new, never a part: temp file, fsync, rename. Mode 0600. */
export async function writeFileAtomic(path: string, content: string | Uint8Array): Promise<void> {
  const temp = `${path}.${process.pid}.${randomBytes(4).toString('hex')}.tmp`;
  try {
    const file = await open(temp, 'wx', 0o600);
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temp, path);
  } catch (error) {
    await rm(temp, { force: true });
    throw error;
  }
  const dir = await open(dirname(path), 'r');
  await dir.sync().finally(() => dir.close());
}

/** `writeFileAtomic` for a JSON document. */
export function writeJson(path: string, value: unknown): Promise<void> {
  return writeFileAtomic(path, `${JSON.stringify(value, null, 2)}\n`);
}

export async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/** Short content hash (16 hex digits) of everything given; the key of cached things. */
export function contentKey(...parts: (string | Uint8Array)[]): string {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(`${part.length}:`).update(part);
  return hash.digest('hex').slice(0, 16);
}

const openScratch = new Set<string>();
// For ends that skip `await using`: process.exit() after a signal.
process.on('exit', () => {
  for (const path of openScratch) rmSync(path, { recursive: true, force: true });
});

/**
 * Folder for work in progress inside the cache, removed by the caller's `await using`.
 * Its name carries this process's id, so that `sweepScratch` can tell a dead owner's from a live one's.
 */
export async function scratchDir(purpose: string): Promise<AsyncDisposable & { path: string }> {
  const path = cacheDir('tmp', `${process.pid}-${purpose}-${randomBytes(4).toString('hex')}`);
  openScratch.add(path);
  await mkdir(path, { recursive: true, mode: 0o700 });
  return {
    path,
    async [Symbol.asyncDispose]() {
      await rm(path, { recursive: true, force: true });
      openScratch.delete(path);
    },
  };
}

/** Removes scratch folders whose owner is no longer alive. Returns how many were removed. */
export async function sweepScratch(): Promise<number> {
  const root = cacheDir('tmp');
  const names = await readdir(root).catch(() => []);
  let removed = 0;
  for (const name of names) {
    const pid = Number.parseInt(name, 10);
    if (Number.isNaN(pid) || isAlive(pid)) continue;
    await rm(join(root, name), { recursive: true, force: true });
    removed++;
  }
  return removed;
}

/** True while a process with this id runs. One that has ended counts as gone even where nobody reaps it (a container's init). */
export function isAlive(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return !/^[ZX]/.test(stat.slice(stat.lastIndexOf(')') + 2));
  } catch {
    return false;
  }
}

/**
 * Makes `target` once: `build` fills a scratch path next to nothing else, which is renamed to `target` when it is whole.
 * Two builders at once are harmless: the second finds the first's result. Returns true if it was built now.
 */
export async function buildOnce(target: string, build: (temp: string) => Promise<void>): Promise<boolean> {
  if (await exists(target)) return false;
  await using scratch = await scratchDir('build');
  const temp = join(scratch.path, 'out');
  await build(temp);
  await mkdir(dirname(target), { recursive: true, mode: 0o700 });
  try {
    await rename(temp, target);
  } catch (error) {
    if (!(await exists(target))) throw error;
  }
  return true;
}
