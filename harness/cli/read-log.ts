import { createReadStream, createWriteStream, fstatSync } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { firstLine, UsageError } from '../base/errors.js';
import { scratchDir } from '../base/files.js';
import { openGiven } from '../base/given-file.js';
import { begins, unpacking, utf16Order } from '../host/unpack.js';
import { carrierOf, HEAD } from '../log/carrier.js';
import { type RawLine, RawLineSplitter } from '../log/raw-line.js';
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

const MIB = 2 ** 20;
/** A log, unpacked, is read no further: a small file can unpack to anything. */
const MOST_MIB = 16 * 1024;
/** As much is taken from a pipe. */
const MOST_STREAMED_MIB = 1024;
/** HTML, JSON and encoded mails are read whole. */
const MOST_CARRIED_MIB = 64;

/** A log that may be larger than memory: its lines come in portions, and can be gone through again. */
export interface LogSource extends AsyncDisposable {
  lines(): AsyncIterable<RawLine[]>;
}

/** A log, packed or not, in whatever encoding people have it. Throws UsageError, also while it is read, if it is none. */
export async function openLog(path: string): Promise<LogSource> {
  const given = fdOf(path) === null ? null : await kept(path);
  const source = new FileSource(given?.file ?? path, path);
  try {
    await source.look();
  } catch (error) {
    await given?.[Symbol.asyncDispose]();
    throw error;
  }
  return {
    lines: () => source.lines(),
    [Symbol.asyncDispose]: async () => given?.[Symbol.asyncDispose](),
  };
}

/** The descriptor that a path names: of stdin, or of a shell's `<(…)`. */
function fdOf(path: string): number | null {
  const [, number] = /^\/(?:dev|proc\/self)\/fd\/(\d{1,4})$/.exec(path) ?? [];
  return path === STDIN ? 0 : number === undefined ? null : Number(number);
}

/** What comes on a descriptor, as a file: it is read twice. One that is a file already stays where it is. */
async function kept(path: string): Promise<{ file: string } & AsyncDisposable> {
  const fd = fdOf(path) ?? 0;
  if (fstatSync(fd).isFile()) return { file: path, [Symbol.asyncDispose]: async () => {} };
  const scratch = await scratchDir('log');
  const file = join(scratch.path, 'log');
  const name = fd === 0 ? 'standard input' : path;
  try {
    // Not by its path: a stdin that is a socket cannot be opened.
    await pipeline(
      fd === 0 ? process.stdin : createReadStream('', { fd }),
      bounded(name),
      createWriteStream(file),
    );
  } catch (error) {
    await scratch[Symbol.asyncDispose]();
    if (error instanceof UsageError) throw error;
    throw new UsageError(
      'unreadable-log',
      `${name}: cannot be kept for reading (${firstLine(error)})`,
      error,
    );
  }
  return { file, [Symbol.asyncDispose]: () => scratch[Symbol.asyncDispose]() };
}

/** Lets no more through than a stream may bring, and nothing that does not begin like text. */
function bounded(name: string): (pieces: AsyncIterable<Buffer>) => AsyncGenerator<Buffer> {
  return async function* (pieces) {
    let bytes = 0;
    for await (const piece of pieces) {
      if (bytes === 0) noZeros(piece, name);
      bytes += piece.length;
      if (bytes > MOST_STREAMED_MIB * MIB)
        throw new UsageError('big-log', `${name}: more than ${MOST_STREAMED_MIB} MiB: give it as a file`);
      yield piece;
    }
  };
}

function noZeros(head: Buffer, path: string): void {
  const start = head.subarray(0, 4096);
  if (utf16Order(head) === null && start.filter((byte) => byte === 0).length > start.length / 10)
    throw new UsageError('no-text', `${path}: is not text`);
}

class FileSource {
  #file: string;
  /** What people call it. */
  #path: string;
  #encoding: 'latin1' | 'utf-16le' | 'utf-16be' = 'latin1';
  #carrier: ReturnType<typeof carrierOf> = null;

  constructor(file: string, path: string) {
    this.#file = file;
    this.#path = path;
  }

  /** Learns from its beginning what it is. */
  async look(): Promise<void> {
    const head = Buffer.concat(await firstOf(this.#bytes(), HEAD));
    for (const { magic, what, advice } of OTHERS)
      if (begins(head, magic))
        throw new UsageError('no-text', `${this.#path}: ${what}, not a log: ${advice}`);
    const order = utf16Order(head);
    if (order === null) noZeros(head, this.#path);
    else this.#encoding = order;
    this.#carrier = carrierOf(new TextDecoder(this.#encoding).decode(head));
  }

  async *lines(): AsyncIterable<RawLine[]> {
    if (this.#carrier) {
      const parts: string[] = [];
      for await (const piece of this.#text(MOST_CARRIED_MIB)) parts.push(piece);
      const text = parts.join('');
      const carried = this.#carrier(text);
      if (carried) {
        yield carried;
        return;
      }
    }
    const splitter = new RawLineSplitter();
    for await (const piece of this.#text(MOST_MIB)) yield splitter.push(piece);
    yield splitter.end();
  }

  /** UTF-16 as it is marked or looks; all else byte for byte: what a report is made of is ASCII. */
  async *#text(most: number): AsyncIterable<string> {
    const decoder = new TextDecoder(this.#encoding);
    let left = most * MIB;
    let isFirst = true;
    for await (const bytes of this.#bytes()) {
      left -= bytes.length;
      if (left < 0)
        throw new UsageError(
          'big-log',
          `${this.#path}: is larger than ${most} MiB${most === MOST_MIB ? '' : ' and no plain text'}: give the part with the crash`,
        );
      const text =
        this.#encoding === 'latin1' ? bytes.toString('latin1') : decoder.decode(bytes, { stream: true });
      yield isFirst ? text.replace(/^(?:\uFEFF|\u00EF\u00BB\u00BF)/, '') : text;
      isFirst = false;
    }
  }

  /** Its bytes, unpacked. */
  async *#bytes(): AsyncIterable<Buffer> {
    const fd = fdOf(this.#file);
    if (fd !== null) {
      yield* unpacking(createReadStream('', { fd, autoClose: false, start: 0 }), this.#path);
      return;
    }
    const file = await openGiven(this.#file, 'unreadable-log');
    try {
      yield* unpacking(file.createReadStream({ autoClose: false }), this.#path);
    } finally {
      await file.close();
    }
  }
}

/** The first pieces of a stream, up to about so many bytes. */
async function firstOf(pieces: AsyncIterable<Buffer>, most: number): Promise<Buffer[]> {
  const first: Buffer[] = [];
  let bytes = 0;
  for await (const piece of pieces) {
    first.push(piece);
    bytes += piece.length;
    if (bytes >= most) break;
  }
  return first;
}
