import type { Dirent } from 'node:fs';
import { readdir, readlink, realpath, rm } from 'node:fs/promises';
import { dirname, join, normalize, relative } from 'node:path';
import { UsageError } from '../base/errors.js';

/** Folders that a kernel's packages may have at their top; everything else there might pass for what this program makes itself. */
const TOP = new Set(['boot', 'lib', 'lib64', 'usr', 'etc', 'opt', 'var', 'sbin', 'bin', 'DEBIAN']);
/** What a module tree's own name, and so every argument that is made of it, may be. */
const RELEASE = /^[A-Za-z0-9][\w.+~-]*$/;
/** Times that links may have to be taken away: packages have two or three. */
const MOST_PASSES = 50;
/** A blank, a line's end or another control character. */
const ODD_NAME = /[\s\p{Cc}]/u;
/** Links that packages have by rights, and that are not needed. */
const USUAL_LINKS = /^(?:usr\/)?lib\/modules\/[^/]+\/(?:build|source|kernel\/.*)$/;

/**
 * Goes through what came out of somebody's packages before anything is read or written in it: devices, FIFOs and sockets are refused by
 * name, and so is what stands where this program's own files will be; links that lead out of the tree, or nowhere, are taken away or
 * refused. `source` is what the tree is from, for messages. Throws UsageError.
 */
export async function refuseOddities(root: string, source: string): Promise<void> {
  const refuse = (path: string, what: string): UsageError =>
    new UsageError('odd-kernel', `${source}: ${path}: ${what}: this is not taken`);
  for (const name of await readdir(root))
    if (!TOP.has(name)) throw refuse(name, 'is nothing that a kernel has at its top');
  for (const tree of ['lib/modules', 'usr/lib/modules'])
    for (const name of await readdir(join(root, tree)).catch(() => []))
      if (!RELEASE.test(name)) throw refuse(join(tree, name), 'is no name of a kernel release');
  // A link that is taken away may have been what another leads through.
  let passes = 0;
  for (let removed = true; removed; ) {
    if (++passes > MOST_PASSES) throw refuse('.', 'has links that lead through links without end');
    removed = false;
    for (const entry of await readdir(root, { recursive: true, withFileTypes: true })) {
      const path = relative(root, join(entry.parentPath, entry.name));
      // Programs print names a line each, and are read so.
      if (/^(?:usr\/)?lib\/modules\//.test(path) && ODD_NAME.test(path))
        throw refuse(JSON.stringify(path), 'has a blank or a control character in its name');
      if (entry.isFile() || entry.isDirectory()) continue;
      if (!entry.isSymbolicLink()) throw refuse(path, `is a ${kindOf(entry)}`);
      if (await staysInside(root, path)) continue;
      const isNeeded = /^(?:boot|(?:usr\/)?lib(?:\/modules|$)|usr$|usr\/lib$)/.test(path);
      if (isNeeded && !USUAL_LINKS.test(path)) throw refuse(path, 'is a link that leads out of the package');
      await rm(join(root, path));
      removed = true;
    }
  }
}

function kindOf(entry: Dirent): string {
  if (entry.isFIFO()) return 'FIFO';
  if (entry.isSocket()) return 'socket';
  return entry.isBlockDevice() || entry.isCharacterDevice() ? 'device' : 'file of no known kind';
}

/**
 * True of a link whose target is in the tree: by its text, and by where the kernel finds it, which differ where a folder on the way is a link. One that leads nowhere is not inside: what is written to it would be made there.
 */
async function staysInside(root: string, path: string): Promise<boolean> {
  const target = await readlink(join(root, path));
  if (target.startsWith('/')) return false;
  if (normalize(join(dirname(path), target)).startsWith('..')) return false;
  const [top, real] = [await realpath(root), await realpath(join(root, path)).catch(() => null)];
  return real?.startsWith(`${top}/`) === true;
}
