import { readFile } from 'node:fs/promises';
import { buffer } from 'node:stream/consumers';
import { UsageError } from '../base/errors.js';
import { begins, unpacked, utf16 } from '../host/unpack.js';
import { STDIN } from './stdin.js';

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
  for (const { magic, what, advice } of OTHERS)
    if (begins(content, magic)) throw new UsageError('no-text', `${path}: ${what}, not a log: ${advice}`);
  return decoded(await unpacked(content, path), path);
}

/** UTF-16 as it is marked or looks; all else byte for byte: what a report is made of is ASCII. */
function decoded(content: Buffer, path: string): string {
  const wide = utf16(content);
  if (wide !== null) return wide;
  const start = content.subarray(0, 4096);
  if (start.filter((byte) => byte === 0).length > start.length / 10)
    throw new UsageError('no-text', `${path}: is not text`);
  return content.toString('latin1').replace(/^\u00EF\u00BB\u00BF/, '');
}
