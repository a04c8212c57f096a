import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { constants, createReadStream, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { access, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { firstLine, UsageError } from './errors.js';
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

/** True if this user may execute the file. */
export async function isExecutable(path: string): Promise<boolean> {
  return access(path, constants.X_OK).then(
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

/** sha256 of a file, in hexadecimal. */
export async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}

const openScratch = new Set<string>();
// For ends that skip `await using`: process.exit() after a signal. A child may still be writing; `sweepScratch` gets what is left.
process.on('exit', () => {
  for (const path of openScratch) {
    try {
      rmSync(path, { recursive: true, force: true });
    } catch {}
  }
});

/** Where process ids mean the same: this host, boot and pid namespace. A cache may be shared with others. */
export function processSpace(): { host: string; boot: string; namespace: string } {
  return {
    host: hostname(),
    boot: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
    namespace: readlinkSync('/proc/self/ns/pid'),
  };
}

/** The same as a short name. */
function pidSpace(): string {
  return contentKey(...Object.values(processSpace())).slice(0, 8);
}

/**
 * Folder for work in progress inside the cache, removed by the caller's `await using`. Its name carries this process's id and where that
 * id is valid, so that `sweepScratch` can tell a dead owner's from a live one's. Throws UsageError if the cache cannot be written to.
 */
export async function scratchDir(purpose: string): Promise<AsyncDisposable & { path: string }> {
  const path = cacheDir('tmp', `${pidSpace()}-${process.pid}-${purpose}-${randomBytes(4).toString('hex')}`);
  openScratch.add(path);
  await mkdir(path, { recursive: true, mode: 0o700 }).catch((error: unknown) => {
    const why = firstLine(error);
    throw new UsageError(
      'bad-cache',
      `the cache ${cacheDir()} cannot be written to (${why}): set XDG_CACHE_HOME`,
      error,
    );
  });
  return {
    path,
    async [Symbol.asyncDispose]() {
      await removeTree(path);
      openScratch.delete(path);
    },
  };
}

/**
 * Removes a folder of work in progress, and tells whether it is gone. Where paths are too long for Node's own way, rm(1) goes in step by step. Never throws: how the work
 * went must not be hidden by that.
 */
async function removeTree(path: string): Promise<boolean> {
  await rm(path, { recursive: true, force: true }).catch(
    () =>
      new Promise<void>((resolve) =>
        execFile('rm', ['-rf', '--one-file-system', '--', path], () => resolve()),
      ),
  );
  return !(await exists(path));
}

const FOREIGN_SCRATCH_DAYS = 2;

/**
 * Removes scratch folders whose owner is no longer alive, and those of other hosts or boots that are older than two days. Best effort: what
 * cannot be removed stays. Returns how many were removed.
 */
export async function sweepScratch(): Promise<number> {
  const root = cacheDir('tmp');
  const here = pidSpace();
  let removed = 0;
  for (const name of await readdir(root).catch(() => [])) {
    const [space, pid] = name.split('-');
    const path = join(root, name);
    if (space === here ? isAlive(Number(pid)) : await isYoung(path)) continue;
    if (await removeTree(path)) removed++;
  }
  return removed;
}

async function isYoung(path: string): Promise<boolean> {
  const info = await stat(path).catch(() => null);
  return info !== null && Date.now() - info.mtimeMs < FOREIGN_SCRATCH_DAYS * 24 * 3600 * 1000;
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
 * `anew` builds in any case and replaces `target` only when the new one is whole.
 */
export async function buildOnce(
  target: string,
  build: (temp: string) => Promise<void>,
  anew = false,
): Promise<boolean> {
  if (!anew && (await exists(target))) return false;
  await using scratch = await scratchDir('build');
  const temp = join(scratch.path, 'out');
  await build(temp);
  await mkdir(dirname(target), { recursive: true, mode: 0o700 });
  // A folder cannot be renamed onto another: the old one goes into the scratch folder, and with it.
  if (anew) await rename(target, join(scratch.path, 'old')).catch(() => {});
  try {
    await rename(temp, target);
  } catch (error) {
    if (!(await exists(target))) throw error;
  }
  return true;
}
