import { gunzipSync } from 'node:zlib';
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

/** The content of a file, unpacked if it is packed (gzip, xz, zstd, bzip2). `path` is for messages. Throws UsageError if it cannot be. */
export async function unpacked(content: Buffer, path: string): Promise<Buffer> {
  const packed = PACKED.find(({ magic }) => begins(content, magic));
  try {
    if (begins(content, '1f8b')) return gunzipSync(content, { maxOutputLength: MOST_BYTES });
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
      maxBuffer: MOST_BYTES,
    });
    return Buffer.from(stdout);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError('damaged-file', `${path}: cannot be unpacked (${firstLine(error)})`, error);
  }
}

/** Text in UTF-16, by its mark or by the zeros of its Latin letters, as text; null if it is something else. */
export function utf16(content: Buffer): string | null {
  if (content.length < 2) return null;
  const start = content.subarray(0, 4096);
  const zeros = (odd: number): number =>
    start.filter((byte, index) => byte === 0 && index % 2 === odd).length / (start.length / 2);
  const mark = start.readUInt16BE(0);
  const isLittle = mark === 0xfffe || zeros(1) > 0.4;
  if (!isLittle && mark !== 0xfeff && zeros(0) <= 0.4) return null;
  const even = content.subarray(0, content.length - (content.length % 2));
  return (isLittle ? even : Buffer.from(even).swap16()).toString('utf16le').replace(/^\uFEFF/, '');
}
