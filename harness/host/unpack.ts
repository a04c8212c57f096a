import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, gunzipSync } from 'node:zlib';
import { firstLine, UsageError } from '../base/errors.js';
import { host } from './command.js';
import { findProgram } from './tools.js';

/** What a packed file begins with, and what unpacks it; gzip is unpacked here. */
const PACKED: readonly { magic: string; program: string; args: string[] }[] = [
  { magic: 'fd377a585a00', program: 'xz', args: ['-dc'] },
  { magic: '28b52ffd', program: 'zstd', args: ['-dcq'] },
  { magic: '425a68', program: 'bzip2', args: ['-dc'] },
];
/** Nothing that people give here is larger. */
const MOST_BYTES = 512 * 2 ** 20;

/** True if content begins with bytes, in hexadecimal. */
export function begins(content: Buffer, magic: string): boolean {
  return content.toString('hex', 0, magic.length / 2) === magic;
}

/**
 * The content of a file, unpacked if it is packed (gzip, xz, zstd, bzip2), to no more than `most` bytes. `path` is for messages. Throws UsageError if it
 * cannot be.
 */
export async function unpacked(content: Buffer, path: string, most = MOST_BYTES): Promise<Buffer> {
  const packed = PACKED.find(({ magic }) => begins(content, magic));
  try {
    if (begins(content, '1f8b')) return gunzipSync(content, { maxOutputLength: most });
    if (!packed) return content;
    const program = await findProgram(packed.program);
    if (program === undefined)
      throw new UsageError(
        'missing-tool',
        `${path}: is packed with ${packed.program}, which is not installed`,
      );
    const { stdout } = await host(program, packed.args, {
      input: content,
      encoding: 'buffer',
      maxBuffer: most,
    });
    return Buffer.from(stdout);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError('damaged-file', `${path}: cannot be unpacked (${firstLine(error)})`, error);
  }
}

/**
 * What a stream holds, unpacked as it comes if it is packed; `path` is for messages. The stream is destroyed if the reader stops early. Throws
 * UsageError if it cannot be read or unpacked.
 */
export async function* unpacking(stream: Readable, path: string): AsyncGenerator<Buffer> {
  const source = stream[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  let stop: () => void = () => {};
  try {
    const first = await source.next();
    if (first.done === true) return;
    const rest = async function* (): AsyncGenerator<Buffer> {
      yield first.value;
      for (let piece = await source.next(); piece.done !== true; piece = await source.next())
        yield piece.value;
    };
    const packed = PACKED.find(({ magic }) => begins(first.value, magic));
    if (begins(first.value, '1f8b')) {
      const gunzip = createGunzip();
      stop = () => gunzip.destroy();
      pipeline(rest(), gunzip).catch(() => {});
      yield* gunzip as AsyncIterable<Buffer>;
    } else if (packed) {
      const program = await findProgram(packed.program);
      if (program === undefined)
        throw new UsageError(
          'missing-tool',
          `${path}: is packed with ${packed.program}, which is not installed`,
        );
      const child = host(program, packed.args, {
        input: Readable.from(rest()),
        encoding: 'buffer',
        buffer: false,
      });
      stop = () => void child.kill('SIGKILL');
      child.catch(() => {});
      yield* child.stdout as AsyncIterable<Buffer>;
      await child;
    } else yield* rest();
  } catch (error) {
    if (error instanceof UsageError) throw error;
    const what = error instanceof Error && 'syscall' in error ? 'read' : 'unpacked';
    throw new UsageError('damaged-file', `${path}: cannot be ${what} (${firstLine(error)})`, error);
  } finally {
    stop();
    stream.destroy();
  }
}

/** In which order bytes are UTF-16, by its mark or by the zeros of its Latin letters; null if they are something else. */
export function utf16Order(content: Buffer): 'utf-16le' | 'utf-16be' | null {
  if (content.length < 2) return null;
  const start = content.subarray(0, 4096);
  const zeros = (odd: number): number =>
    start.filter((byte, index) => byte === 0 && index % 2 === odd).length / (start.length / 2);
  const mark = start.readUInt16BE(0);
  if (zeros(0) > 0.4 && zeros(1) > 0.4) return null;
  if (mark === 0xfffe || zeros(1) > 0.4) return 'utf-16le';
  return mark === 0xfeff || zeros(0) > 0.4 ? 'utf-16be' : null;
}

/** Text in UTF-16; null if it is something else. */
export function utf16(content: Buffer): string | null {
  const order = utf16Order(content);
  return order === null ? null : new TextDecoder(order).decode(content);
}
