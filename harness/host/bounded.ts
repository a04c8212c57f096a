import { UsageError } from '../base/errors.js';
import { host } from './command.js';

const GIB = 2 ** 30;
/** Nothing that is given here unpacks to more: a kernel's debug info has four. */
export const MOST_UNPACKED = 8 * GIB;
/** A kernel's source has 80,000 files. */
const MOST_FILES = 200_000;
/** How often the folder is measured. */
const INTERVAL_MS = 1000;

/**
 * Does work that fills a folder with what somebody handed over, and stops it once the folder holds more than `most` bytes, holes counted: a
 * small file may unpack to anything. `what` is for the message. Throws UsageError then.
 */
export async function bounded<T>(
  dir: string,
  what: string,
  work: (signal: AbortSignal) => Promise<T>,
  most = MOST_UNPACKED,
): Promise<T> {
  const over = new AbortController();
  let done = false;
  let wake: () => void = () => {};
  const measure = async (): Promise<void> => {
    if ((await sizeOf(dir, '-B1')) > most || (await sizeOf(dir, '--inodes')) > MOST_FILES) over.abort();
  };
  const watch = async (): Promise<void> => {
    while (!done && !over.signal.aborted) {
      await new Promise<void>((resolve) => {
        wake = resolve;
        setTimeout(resolve, INTERVAL_MS).unref();
      });
      if (!done) await measure();
    }
  };
  const watching = watch();
  try {
    const result = await work(over.signal);
    await measure();
    if (over.signal.aborted) throw new Error('too large');
    return result;
  } catch (error) {
    if (!over.signal.aborted) throw error;
    throw new UsageError(
      'too-large',
      `${what}: unpacks to more than ${most / GIB} GiB or ${MOST_FILES} files: this is not taken`,
      error,
    );
  } finally {
    done = true;
    wake();
    await watching;
  }
}

/** Bytes of all files below a folder, as long as they say that they are, or their number; what vanishes meanwhile does not count. */
async function sizeOf(dir: string, unit: '-B1' | '--inodes'): Promise<number> {
  const { stdout } = await host('du', ['-s', '--apparent-size', unit, dir], { reject: false });
  return Number(/^\d+/.exec(stdout)?.[0] ?? 0);
}
