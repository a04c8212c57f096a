import { readdir, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import * as z from 'zod';
import { readGiven } from '../base/given-file.js';
import { isLocked } from './lock.js';
import { RUN_ID } from './run-id.js';

/**
 * Removes the oldest finished runs of a matrix below `results`, so that `keep` of them stay, the one called `current` always. Runs of
 * other matrices, by other commands, and those that were interrupted or not finished (they may go on or be resumed) stay, and are not
 * counted. Returns what was removed.
 */
export async function pruneRuns(
  results: string,
  keep: number,
  { matrix, current }: { matrix: string; current: string },
): Promise<string[]> {
  const base = resolve(results);
  const finished: { name: string; finishedAt: string }[] = [];
  for (const name of (await readdir(base).catch(() => [])).filter((entry) => RUN_ID.test(entry))) {
    const text = await readGiven(join(base, name, 'run.json'), MOST_MIB).then(String, () => 'null');
    // Not by its schema: runs of an older loopanic are runs too.
    const run = parse(text);
    if (name !== current && isLocked(join(base, name))) continue;
    if (
      run?.command === 'matrix' &&
      run.matrix?.name === matrix &&
      // A part is no whole run: it is kept until somebody has merged it.
      !run.matrix.shard &&
      run.finishedAt !== null &&
      !run.interrupted
    )
      finished.push({ name, finishedAt: run.finishedAt });
  }
  finished.sort((a, b) => a.finishedAt.localeCompare(b.finishedAt) || a.name.localeCompare(b.name));
  const others = finished.filter(({ name }) => name !== current);
  const room = Math.max(0, keep - (finished.length - others.length));
  const old = others.slice(0, Math.max(0, others.length - room)).map(({ name }) => name);
  for (const name of old) await rm(join(base, name), { recursive: true, force: true });
  return old;
}

/** What of a run of any age tells that it is over. */
const finishedSchema = z.object({
  command: z.string(),
  matrix: z.object({ name: z.string(), shard: z.object({}).nullish() }).nullable(),
  finishedAt: z.iso.datetime().nullable(),
  interrupted: z.boolean(),
});
const MOST_MIB = 256;

function parse(text: string): z.infer<typeof finishedSchema> | null {
  try {
    return finishedSchema.parse(JSON.parse(text));
  } catch {
    return null;
  }
}
