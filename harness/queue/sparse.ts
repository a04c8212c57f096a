import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';

/** What of a disk is looked at as one: all zeros, or sent. */
const BLOCK = 64 * 1024;
const HEAD = 12;
const READ_BYTES = 64 * BLOCK;
const ZEROS = Buffer.alloc(BLOCK);

/**
 * A large file with holes as a short stream: its size, then each block of 64 KiB that is not all zeros, with its place. The same content gives the
 * same stream, whatever its file system.
 */
export async function* sparseStream(path: string): AsyncGenerator<Buffer> {
  const file = await open(path, 'r');
  try {
    const { size } = await file.stat();
    yield header(size, 0);
    const buffer = Buffer.alloc(READ_BYTES);
    for (let at = 0; at < size; at += READ_BYTES) {
      const { bytesRead } = await file.read(buffer, 0, READ_BYTES, at);
      for (let from = 0; from < bytesRead; from += BLOCK) {
        const block = buffer.subarray(from, Math.min(from + BLOCK, bytesRead));
        if (block.equals(ZEROS.subarray(0, block.length))) continue;
        yield Buffer.concat([header(at + from, block.length), block]);
      }
    }
  } finally {
    await file.close();
  }
}

function header(offset: number, length: number): Buffer {
  const head = Buffer.alloc(HEAD);
  head.writeBigUInt64LE(BigInt(offset), 0);
  head.writeUInt32LE(length, 8);
  return head;
}

/** sha256 of such a stream, and its bytes. */
export async function describeSparse(path: string): Promise<{ sha256: string; bytes: number }> {
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const chunk of sparseStream(path)) {
    hash.update(chunk);
    bytes += chunk.length;
  }
  return { sha256: hash.digest('hex'), bytes };
}

/** Makes the file again. Throws if the stream is no such thing, or wants a file of more than `mostBytes`. */
export async function writeSparse(
  stream: AsyncIterable<Uint8Array>,
  target: string,
  mostBytes: number,
): Promise<void> {
  const file = await open(target, 'wx', 0o600);
  try {
    let held = Buffer.alloc(0);
    let size: number | null = null;
    for await (const chunk of stream) {
      held = Buffer.concat([held, chunk]);
      for (;;) {
        if (held.length < HEAD) break;
        const [offset, length] = [Number(held.readBigUInt64LE(0)), held.readUInt32LE(8)];
        if (size === null) {
          if (offset > mostBytes) throw new Error(`a disk of ${offset} bytes is not taken`);
          size = offset;
          await file.truncate(size);
          held = held.subarray(HEAD);
          continue;
        }
        if (length === 0 || length > BLOCK || offset + length > size) throw new Error('it is damaged');
        if (held.length < HEAD + length) break;
        const { bytesWritten } = await file.write(held, HEAD, length, offset);
        if (bytesWritten !== length) throw new Error('the disk is full');
        held = held.subarray(HEAD + length);
      }
    }
    if (size === null || held.length > 0) throw new Error('it is cut off');
  } finally {
    await file.close();
  }
}
