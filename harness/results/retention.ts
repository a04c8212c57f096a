import { readdir, readFile, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';

/** A run's folder, as RunFolder names it; nothing else is ever removed. */
const RUN_ID = /^\d{8}T\d{6}Z-[0-9a-f]{6}$/;

/**
 * Removes the oldest finished runs below `results`, so that `keep` of them stay. Runs that were not finished may still go on or be resumed: they stay, and are not counted.
 * Returns what was removed.
 */
export async function pruneRuns(results: string, keep: number): Promise<string[]> {
  const base = resolve(results);
  const finished: string[] = [];
  for (const name of (await readdir(base).catch(() => [])).filter((entry) => RUN_ID.test(entry)).sort()) {
    const text = await readFile(join(base, name, 'run.json'), 'utf8').catch(() => '');
    // Not parsed by its schema: runs of an older loopanic are runs too.
    if (/"finishedAt": "[^"]+"/.test(text) && /"interrupted": false/.test(text)) finished.push(name);
  }
  const old = finished.slice(0, Math.max(0, finished.length - keep));
  for (const name of old) await rm(join(base, name), { recursive: true, force: true });
  return old;
}
