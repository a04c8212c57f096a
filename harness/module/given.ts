import { mkdir, realpath, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { UsageError } from '../base/errors.js';
import { buildOnce, contentKey, exists, scratchDir } from '../base/files.js';
import { readGiven } from '../base/given-file.js';
import { cacheDir, isFile } from '../base/paths.js';
import type { GateModule } from '../bug/bug.js';
import { koName } from '../bug/family.js';
import { begins, unpacked } from '../host/unpack.js';
import { findFiles, unpackPackage } from '../package/package-files.js';
import { hasSeries } from './patch-file.js';

/** No module, and no package of one, is larger. */
const MOST_MODULE_MIB = 512;

/** What a module's id can be. */
export type IdKind = 'stock' | 'name' | 'ko' | 'package' | 'patch' | 'folder';

/** What a module id is: a name, or by its content what the file or folder holds. */
export async function kindOf(id: string): Promise<IdKind> {
  if (id === 'stock') return 'stock';
  if (!isFile(id)) return 'name';
  const info = await stat(id).catch(() => null);
  if (info?.isDirectory()) return (await hasSeries(id)) ? 'patch' : 'folder';
  if (!info?.isFile()) return /\.(?:ko|deb|rpm)(?:\.|$)/i.test(id) ? 'ko' : 'patch';
  const content = await unpacked(await readGiven(id, MOST_MODULE_MIB), id);
  if (begins(content, '7f454c46') || id.endsWith('.ko')) return 'ko';
  return begins(content, 'edabeedb') || begins(content, '213c617263683e') ? 'package' : 'patch';
}

/** The plain .ko that a file is, packs, or, as a package, holds. Throws UsageError if that is not one. */
export async function takeKo(id: string, gate: GateModule): Promise<string> {
  const file = await realpath(id).catch(() => id);
  const kind = await kindOf(file);
  let content = (await exists(file)) ? await readGiven(file, MOST_MODULE_MIB) : null;
  if (content === null || (kind === 'ko' && begins(content, '7f454c46'))) return file;
  const ko = koName(gate);
  await using scratch = await scratchDir('package');
  if (kind === 'package') {
    const out = join(scratch.path, 'out');
    await unpackPackage(file, out);
    const name = new RegExp(`(?:^|/)${ko.replace('.', '\\.')}(?:\\.(?:xz|gz|zst))?$`);
    const found = await findFiles(out, name);
    const [only] = found;
    if (only === undefined || found.length > 1)
      throw new UsageError(
        'wrong-module',
        `${id}: holds ${found.length === 0 ? `no ${ko}` : found.join(', ')}: there must be one`,
      );
    content = await readGiven(join(out, only), MOST_MODULE_MIB);
  }
  const plain = await unpacked(content, id);
  if (!begins(plain, '7f454c46')) return file;
  const dir = cacheDir('modules', `taken-${contentKey(plain)}`);
  await buildOnce(dir, async (out) => {
    await mkdir(out);
    await writeFile(join(out, ko), plain);
  });
  return join(dir, ko);
}
