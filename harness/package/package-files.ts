import { mkdir, readdir, stat } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { firstLine, UsageError } from '../base/errors.js';
import { openGiven } from '../base/given-file.js';
import { bounded } from '../host/bounded.js';
import { command, commandError, host } from '../host/command.js';
import { needProgram } from '../host/tools.js';

/** What a file that people have on disk is. */
export type FileKind = 'rpm' | 'deb' | 'tar' | 'elf' | 'directory';

/** Tells by content, not by name. Throws UsageError if the file is not there or is none of these. */
export async function fileKind(path: string): Promise<FileKind> {
  const info = await stat(path).catch((error: unknown) => {
    throw new UsageError('no-such-file', `${path}: cannot be read (${firstLine(error)})`, error);
  });
  if (info.isDirectory()) return 'directory';
  const file = await openGiven(path);
  const head = Buffer.alloc(262);
  await file.read(head, 0, head.length, 0).finally(() => file.close());
  const hex = head.toString('hex', 0, 6);
  if (hex.startsWith('edabeedb')) return 'rpm';
  if (head.toString('latin1', 0, 7) === '!<arch>') return 'deb';
  if (hex.startsWith('7f454c46')) return 'elf';
  const compressed = ['fd377a585a00', '1f8b', '425a68', '28b52ffd'].some((magic) => hex.startsWith(magic));
  if (compressed || head.toString('latin1', 257, 262) === 'ustar') return 'tar';
  throw new UsageError(
    'odd-file',
    `${path}: neither an RPM, a .deb, a tar archive, an ELF file nor a directory`,
  );
}

/**
 * Unpacks a package into `out`, or only what matches `only` (a glob over the path inside, which begins with "./"). bsdtar lets nothing
 * land outside `out`, not through links that this or an earlier package brought either. Throws UsageError if the package is damaged.
 */
export async function unpackPackage(path: string, out: string, only?: string): Promise<void> {
  const kind = await fileKind(path);
  if (kind !== 'rpm' && kind !== 'deb')
    throw new UsageError('odd-file', `${path}: neither an RPM nor a .deb`);
  await mkdir(out, { recursive: true });
  // Programs first: a pipe that is joined late has lost its beginning.
  const [bsdtar, dpkg] = [await needProgram('bsdtar'), kind === 'deb' ? await needProgram('dpkg-deb') : ''];
  const args = (file: string): string[] => [
    // Nothing of a package's but its files: no owner, no set-uid bits, no flags that keep them from being removed.
    ...[
      '-x',
      '-C',
      out,
      '--no-same-owner',
      '--no-same-permissions',
      '--no-fflags',
      '--no-acls',
      '--no-xattrs',
    ],
    ...['-f', file],
    ...(only === undefined ? [] : ['--fast-read', only]),
  ];
  const unpack = async (cancelSignal: AbortSignal): Promise<unknown> =>
    kind === 'rpm'
      ? command(bsdtar, args(resolve(path)), { cancelSignal })
      : // --fast-read stops once it has the file: dpkg-deb then ends on a closed pipe, and only bsdtar's word counts.
        host(dpkg, ['--fsys-tarfile', resolve(path)], {
          buffer: { stdout: false },
          reject: only === undefined,
          cancelSignal,
        }).pipe(bsdtar, args('-'), { cancelSignal });
  try {
    await bounded(out, path, unpack);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    const words = commandError(basename(path), error).message;
    throw new UsageError('damaged-package', `${path}: cannot be unpacked: ${words}`, error);
  }
}

/** Every file below a folder whose path (relative to it) matches. Follows no links. */
export async function findFiles(root: string, pattern: RegExp): Promise<string[]> {
  const entries = await readdir(root, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(root.length + 1))
    .filter((path) => pattern.test(path))
    .sort();
}
