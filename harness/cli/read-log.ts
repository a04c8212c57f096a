import { readFile } from 'node:fs/promises';
import { buffer } from 'node:stream/consumers';
import { gunzipSync } from 'node:zlib';
import { firstLine, UsageError } from '../base/errors.js';
import { host } from '../host/command.js';
import { findProgram } from '../host/tools.js';
import { STDIN } from './context.js';

/** What a file begins with, and what unpacks it. */
const PACKED: readonly { magic: string; program: string; args: string[] }[] = [
  { magic: 'fd377a585a00', program: 'xz', args: ['-dc'] },
  { magic: '28b52ffd', program: 'zstd', args: ['-dcq'] },
  { magic: '425a68', program: 'bzip2', args: ['-dc'] },
];
/** What is no text, and what makes one of it. */
const OTHERS: readonly { magic: string; what: string; advice: string }[] = [
  {
    magic: Buffer.from('LPKSHHRH').toString('hex'),
    what: 'is a journal of systemd',
    advice: 'give what `journalctl --file FILE -k` prints',
  },
  {
    magic: Buffer.from('KDUMP   ').toString('hex'),
    what: 'is a dump',
    advice: 'give the vmcore-dmesg.txt beside it, or use `loopanic analyze`',
  },
  {
    magic: Buffer.from('makedumpfile').toString('hex'),
    what: 'is a flattened dump',
    advice: 'make a dump of it (makedumpfile -R), and use `loopanic analyze`',
  },
  {
    magic: '7f454c46',
    what: 'is an ELF file, a vmcore perhaps',
    advice: 'give its vmcore-dmesg.txt, or use `loopanic analyze`',
  },
];

/** Text of a log, packed or not, in whatever encoding people have it. Throws UsageError if it is none. */
export async function readLog(path: string): Promise<string> {
  let content: Buffer;
  try {
    // Not by its path: a stdin that is a socket cannot be opened.
    content = path === STDIN ? await buffer(process.stdin) : await readFile(path);
  } catch (error) {
    throw new UsageError('unreadable-log', `${path}: cannot be read (${(error as Error).message})`, error);
  }
  return decoded(await unpacked(content, path), path);
}

async function unpacked(content: Buffer, path: string): Promise<Buffer> {
  const begins = (magic: string): boolean => content.toString('hex', 0, magic.length / 2) === magic;
  const broken = (error: unknown): UsageError =>
    new UsageError('unreadable-log', `${path}: cannot be unpacked (${firstLine(error)})`, error);
  for (const { magic, what, advice } of OTHERS)
    if (begins(magic)) throw new UsageError('no-text', `${path}: ${what}, not a log: ${advice}`);
  if (begins('1f8b'))
    try {
      return gunzipSync(content);
    } catch (error) {
      throw broken(error);
    }
  const packed = PACKED.find(({ magic }) => begins(magic));
  if (!packed) return content;
  const program = await findProgram(packed.program);
  if (program === undefined)
    throw new UsageError('missing-tool', `${path}: is packed with ${packed.program}, which is not installed`);
  try {
    const { stdout } = await host(program, packed.args, { input: content, encoding: 'buffer' });
    return Buffer.from(stdout);
  } catch (error) {
    throw broken(error);
  }
}

/** UTF-16 by its mark, or by the zeros of its Latin letters; all else byte for byte: what a report is made of is ASCII. */
function decoded(content: Buffer, path: string): string {
  if (content.length < 2) return content.toString('latin1');
  const start = content.subarray(0, 4096);
  const mark = start.readUInt16BE(0);
  const zeros = (odd: number): number =>
    start.filter((byte, index) => byte === 0 && index % 2 === odd).length / Math.max(1, start.length / 2);
  const isLittle = mark === 0xfffe || zeros(1) > 0.4;
  const isBig = mark === 0xfeff || zeros(0) > 0.4;
  if (isLittle || isBig) {
    const even = content.subarray(0, content.length - (content.length % 2));
    return (isLittle ? even : Buffer.from(even).swap16()).toString('utf16le').replace(/^\uFEFF/, '');
  }
  if (zeros(0) + zeros(1) > 0.2) throw new UsageError('no-text', `${path}: is not text`);
  return content.toString('latin1').replace(/^\u00EF\u00BB\u00BF/, '');
}
