import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { sweepScratch } from '../../base/files.js';
import { cacheDir } from '../../base/paths.js';
import { catalogue } from '../../kernel/catalogue.js';
import { presentIds, removeKernel } from '../../kernel/store.js';
import { printResult } from '../context.js';

/**
 * `loopanic clean`: what dead runs left in the cache; with --cache the cache itself: what is built or fetched comes again when needed.
 * Kernels that were added by hand and modules that have a name would not: they stay.
 */
export async function clean(args: { cache: boolean; json: boolean }): Promise<number> {
  const removed = await sweepScratch();
  const caches: string[] = [];
  if (args.cache)
    for (const name of await readdir(cacheDir()).catch(() => [])) {
      // Scratch folders that are left belong to live processes.
      if (name === 'tmp') continue;
      if (name === 'kernels') await removeFetched();
      else if (name === 'modules') await removeBut(cacheDir(name), 'named');
      else await rm(cacheDir(name), { recursive: true, force: true });
      caches.push(name);
    }
  printResult(args.json, { leftovers: removed, caches }, () => [
    `${removed} leftovers removed${caches.length > 0 ? `; caches removed: ${caches.join(', ')}` : ''}`,
  ]);
  return 0;
}

async function removeFetched(): Promise<void> {
  const known = await catalogue();
  for (const id of await presentIds()) if (Object.hasOwn(known, id)) await removeKernel(id);
}

async function removeBut(dir: string, kept: string): Promise<void> {
  for (const name of await readdir(dir))
    if (name !== kept) await rm(join(dir, name), { recursive: true, force: true });
}
