import { constants } from 'node:fs';
import { type FileHandle, open, realpath } from 'node:fs/promises';
import type { ErrorCode } from './error-codes.js';
import { firstLine, UsageError } from './errors.js';

const MIB = 2 ** 20;

/**
 * Opens a file that somebody handed over, for reading; the caller closes it. What is none (a folder, device, FIFO, socket) is refused and
 * never waited for. Throws UsageError with `code`.
 */
export async function openGiven(path: string, code: ErrorCode = 'unreadable-file'): Promise<FileHandle> {
  let file: FileHandle;
  try {
    // A FIFO that nobody writes to would hold this process, beyond signals, until somebody does.
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    // What opening a socket says, and a FIFO does not.
    const why = (error as NodeJS.ErrnoException).code === 'ENXIO' ? 'it is no file' : firstLine(error);
    throw new UsageError(code, `${path}: cannot be read (${why})`, error);
  }
  const info = await file.stat();
  if (info.isFile()) return file;
  await file.close();
  const kind = info.isDirectory()
    ? 'a folder'
    : info.isFIFO()
      ? 'a FIFO'
      : info.isSocket()
        ? 'a socket'
        : 'a device';
  throw new UsageError(code, `${path}: is ${kind}, not a file`);
}

/** The content of a file that somebody handed over, of no more than `most` MiB. Throws UsageError with `code`. */
export async function readGiven(
  path: string,
  most: number,
  code: ErrorCode = 'unreadable-file',
): Promise<Buffer> {
  const file = await openGiven(path, code);
  try {
    const { size } = await file.stat();
    if (size > most * MIB)
      throw new UsageError(code, `${path}: has ${Math.ceil(size / MIB)} MiB; more than ${most} are not read`);
    return await file.readFile();
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(code, `${path}: cannot be read (${firstLine(error)})`, error);
  } finally {
    await file.close();
  }
}

/**
 * Where a path in a folder that somebody handed over leads. Throws UsageError with `code` if that is out of the folder: what is there would be
 * handed on as the folder's own.
 */
export async function insideOf(dir: string, path: string, code: ErrorCode = 'odd-file'): Promise<string> {
  const [top, real] = await Promise.all([realpath(dir), realpath(path)]);
  if (real === top || real.startsWith(`${top}/`)) return real;
  throw new UsageError(code, `${path}: is a link that leads out of ${dir}, to ${real}: this is not taken`);
}
