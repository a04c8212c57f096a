import { type FileHandle, open } from 'node:fs/promises';
import { InfraError } from '../base/errors.js';

const SIGNATURE = 'makedumpfile';
/** The format's own header; then come records: where, how many bytes (both 64 bits, big-endian), and the bytes. An offset of -1 ends it. */
const HEADER_BYTES = 4096;
const RECORD_BYTES = 16;
/** Bytes of a record, with so many of them. */
const SMALLEST_ON_AVERAGE = 256;
const MIN_RECORDS = 100_000;

/**
 * Throws InfraError if the dump that a flattened one (makedumpfile -F) would be restored to is no dump of a guest with so much memory: `most`
 * bytes. What a guest wrote is not taken on trust: 4 KiB of it can ask for a file of terabytes.
 */
export async function checkFlattened(path: string, most: number): Promise<void> {
  const file = await open(path, 'r');
  try {
    const { size } = await file.stat();
    const damaged = (what: string): InfraError =>
      new InfraError('dump-damaged', `the flattened dump ${what}`);
    const start = await read(file, 0, SIGNATURE.length);
    if (start.toString('latin1') !== SIGNATURE) throw damaged('does not begin as one');
    let records = 0;
    for (let at = HEADER_BYTES; ; ) {
      // A dump is made of pages: one of crumbs would take hours to go through.
      if (++records > MIN_RECORDS && records * SMALLEST_ON_AVERAGE > at) throw damaged('is made of crumbs');
      if (at + RECORD_BYTES > size) throw damaged('is cut: it has no end');
      const record = await read(file, at, RECORD_BYTES);
      const [offset, bytes] = [record.readBigInt64BE(0), record.readBigInt64BE(8)];
      if (offset === -1n && bytes === -1n) return;
      if (offset < 0n || bytes <= 0n) throw damaged(`has a record of ${bytes} bytes at ${offset}`);
      if (offset + bytes > BigInt(most))
        throw damaged(`is of ${offset + bytes} bytes or more: more than the guest's memory`);
      at += RECORD_BYTES + Number(bytes);
    }
  } finally {
    await file.close();
  }
}

async function read(file: FileHandle, at: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  const { bytesRead } = await file.read(buffer, 0, length, at);
  return buffer.subarray(0, bytesRead);
}
