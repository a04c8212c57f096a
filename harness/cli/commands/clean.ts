import { readdir, rm } from 'node:fs/promises';
import { sweepScratch } from '../../base/files.js';
import { cacheDir } from '../../base/paths.js';
import { printResult } from '../context.js';

/** `loopanic clean`: what dead runs left in the cache; with --cache the cache itself (what is built or fetched comes again when needed). */
export async function clean(args: { cache: boolean; json: boolean }): Promise<number> {
  const removed = await sweepScratch();
  const caches: string[] = [];
  if (args.cache)
    for (const name of await readdir(cacheDir()).catch(() => [])) {
      // Scratch folders that are left belong to live processes.
      if (name === 'tmp') continue;
      await rm(cacheDir(name), { recursive: true, force: true });
      caches.push(name);
    }
  printResult(args.json, { leftovers: removed, caches }, () => [
    `${removed} leftovers removed${caches.length > 0 ? `; caches removed: ${caches.join(', ')}` : ''}`,
  ]);
  return 0;
}
