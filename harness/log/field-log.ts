import { stripVTControlCharacters } from 'node:util';
import { carrierOf, HEAD, journalMessage } from './carrier.js';
import { type LogLine, parseLine, standardPrefix } from './log-line.js';
import { type RawLine, rawLines } from './raw-line.js';

/** How the kernel begins its own messages of a report: what stands before one of them is what a tool put there. */
const BEGINNINGS = new RegExp(
  [
    'usercopy: [Kk]ernel memory (?:exposure|overwrite)',
    '-{12}\\[ cut here \\]-{12}',
    'kernel BUG at \\S+?:\\d+',
    'invalid opcode: \\d',
    'CPU: \\d+ (?:UID: \\d+ )?PID: \\d+ Comm: ',
    'WARNING: CPU: \\d+ PID: \\d+ at ',
    'Call [Tt]race:',
    'Modules linked in:',
    'RIP: 00\\d\\d:',
    'RSP: 00\\d\\d:',
    'RAX: [0-9a-f]{16}',
    'RBP: [0-9a-f]{16}',
    'Hardware name: ',
    '---\\[ end (?:trace|Kernel panic)',
    'Kernel panic - not syncing',
    'BUG: (?:unable to handle|kernel NULL pointer|Bad page)',
    'Oops: [0-9a-f]',
    'general protection fault',
    '#PF: ',
    'PGD [0-9a-f]',
    'divide error: \\d',
    '(?:stack segment|double fault|int3|alignment check|segment not present|invalid TSS|coprocessor segment overrun): \\d',
    'segment-related general protection fault',
    'Unable to handle kernel',
    'BUG: (?:Unable to handle kernel|KASAN|KFENCE|KCSAN|KMSAN|memory leak|soft lockup|scheduling while atomic|sleeping function)',
    'watchdog: BUG: ',
    'Internal error: ',
    'Unhandled fault: ',
    'Oops(?:\\[#| \\[#|: )',
    'UBSAN: ',
    'refcount_t: ',
    'rcu: INFO: ',
    'kmemleak: ',
    'WARNING: (?:possible |suspicious |inconsistent |bad unlock)',
    "INFO: task \\S+ (?:blocked for|can't die)",
    'Linux version \\d',
  ].join('|'),
);
/** A program's name before its text: what it says is not the kernel's, whatever it quotes. The kernel's own tag, and names of levels, are. */
const PROGRAM = /(?:^|[\s|])([A-Za-z][\w./-]*)(?:\[\d+\])?: /g;
const KERNELS_OWN =
  /^(?:kernel|kern|emerg|alert|crit|err|error|warn|warning|notice|info|debug|login|[VDIWEF])$/;
/** A record of the audit system quotes what was done, in fields. */
const AUDITED = /\baudit\(|\btype=[A-Z_0-9]+ /;
/** More kinds of prefixes than this no file has. */
const MOST_PREFIXES = 40;
const LONGEST_PREFIX = 160;
/** Columns at which people's tools wrap. */
const NARROWEST = 60;
const WIDEST = 132;
/** A line that is wrapped at a word may end this far before the width. */
const LONGEST_WORD = 16;
/** And several end nearer. */
const NEAR = 8;
/** Part of the lines near the width that reach it, where a line is cut at any character. */
const MOSTLY = 0.6;
/** A line of registers (arch/x86/kernel/process_64.c __show_regs). */
const REGISTERS = /(?:^| )(?:RAX|RDX|RBP|R10|R13|FS|CS|CR2|DR0|DR3): +[0-9a-f]{4}/;
/** A line of a call trace, which goes on with none before it. */
const TRACE_ENTRY = /^(?:\? |\[<[0-9a-f]{8,16}>\] )?[\w.]+\+0x[0-9a-f]+\/0x[0-9a-f]+/;
/** What mail programs put before what they quote. */
const QUOTE = /^(?:> ?){1,9}/;

/** How a file writes its lines: what is told by reading it once. */
export interface Field {
  /** What stands before the kernel's own words, as patterns, longest first. */
  prefixes: RegExp[];
  /** Its lines are quoted, as in a mail. */
  isQuoted: boolean;
  /** Its lines were wrapped at this many columns, at any character or at words. */
  wrapped: { width: number; at: 'characters' | 'words' } | null;
  /** Nearly all lines begin with a prefix, so one without is no message's beginning. */
  isPrefixed: boolean;
}

/** Reads a file for the first time, line by line, to learn how its lines are written. */
export class FieldLearner {
  #shapes = new Set<string>();
  #lines = 0;
  #quoted = 0;
  #prefixed = 0;
  /** How many lines there are of each length, as they are and without quotation marks. */
  #widths = { plain: new Widths(), unquoted: new Widths() };

  push(raw: string): void {
    const text = clean(raw);
    if (text.trim() === '') return;
    this.#lines++;
    const message = messageIn(text);
    const unquoted = message.replace(QUOTE, '');
    // A message in JSON is whole, however long its line is; registers are, too, and many are of one length.
    this.#widths.plain.push(message === text ? text.length : Number.POSITIVE_INFINITY, REGISTERS.test(text));
    this.#widths.unquoted.push(unquoted.length, REGISTERS.test(unquoted));
    if (standardPrefix(unquoted) !== '') this.#prefixed++;
    this.#learn(message);
    if (unquoted === message) return;
    this.#quoted++;
    this.#learn(unquoted);
  }

  #learn(message: string): void {
    const at = BEGINNINGS.exec(message.slice(0, 400))?.index ?? 0;
    const prefix = message.slice(0, at);
    if (at === 0 || at > LONGEST_PREFIX || this.#shapes.size >= MOST_PREFIXES) return;
    // Its own is taken off in any case, and what is left then is a program's, or the kernel's.
    if (standardPrefix(message).length === at || isPrograms(prefix)) return;
    this.#shapes.add(shapeOf(prefix));
  }

  field(): Field {
    const shapes = [...this.#shapes].sort((a, b) => b.length - a.length);
    const isQuoted = this.#quoted > this.#lines / 2;
    return {
      prefixes: shapes.map((shape) => new RegExp(`^${shape}`)),
      isQuoted,
      wrapped: (isQuoted ? this.#widths.unquoted : this.#widths.plain).wrapped(),
      isPrefixed: this.#prefixed > this.#lines / 3,
    };
  }
}

/** Lengths of lines, counted up to the widest that a tool wraps at. */
class Widths {
  #counts = new Uint32Array(WIDEST + 1);
  #longest = 0;

  push(length: number, isWhole: boolean): void {
    this.#longest = Math.max(this.#longest, length);
    if (!isWhole && length <= WIDEST) this.#counts[length] = (this.#counts[length] ?? 0) + 1;
  }

  /** Wrapped text has no longer lines, and several that reach its width. */
  wrapped(): Field['wrapped'] {
    const width = this.#longest;
    if (width > WIDEST || width < NARROWEST) return null;
    const between = (from: number): number =>
      this.#counts.subarray(from, width + 1).reduce((sum, count) => sum + count, 0);
    if (between(width) >= 3 && between(width - 1) > between(width - NEAR) * MOSTLY)
      return { width, at: 'characters' };
    return between(width - LONGEST_WORD) >= 3 ? { width, at: 'words' } : null;
  }
}

/** Reads a file's lines once it is known how they are written. */
export class FieldReader {
  #last: RawLine | null = null;
  /** Length of the last line before anything was joined to it: whether it was full. */
  #lastLength = 0;

  readonly field: Field;

  constructor(field: Field) {
    this.field = field;
  }

  push({ text: raw, number }: RawLine): LogLine[] {
    const text = this.field.isQuoted ? clean(raw).replace(QUOTE, '') : clean(raw);
    if (!this.field.wrapped) return this.#parse({ text, number });
    if (this.#last && this.#continues(text)) {
      this.#last.text += this.field.wrapped.at === 'words' ? ` ${text}` : text;
      this.#lastLength = text.length;
      return [];
    }
    const before = this.end();
    this.#last = { text, number };
    this.#lastLength = text.length;
    return before;
  }

  /** What is left. */
  end(): LogLine[] {
    const last = this.#last;
    this.#last = null;
    return last ? this.#parse(last) : [];
  }

  /** Whether a line goes on with the one before it. */
  #continues(text: string): boolean {
    const { wrapped, prefixes, isPrefixed } = this.field;
    if (!wrapped || text.trim() === '' || standardPrefix(text) !== '') return false;
    if (prefixes.some((prefix) => /\S/.test(prefix.exec(text)?.[0] ?? ''))) return false;
    if (!isPrefixed && BEGINNINGS.exec(text)?.index === 0) return false;
    if (wrapped.at === 'characters') return this.#lastLength >= wrapped.width - 1;
    if (/^\s/.test(text) || TRACE_ENTRY.test(text) || REGISTERS.test(text)) return false;
    const word = /^\S+/.exec(text)?.[0] ?? '';
    return this.#lastLength + 1 + word.length > wrapped.width;
  }

  #parse({ text, number }: RawLine): LogLine[] {
    const message = messageIn(text);
    for (const prefix of this.field.prefixes) {
      const found = prefix.exec(message);
      if (found) return parseLine(message.slice(found[0].length), number);
    }
    return parseLine(message, number);
  }
}

/**
 * Lines of a kernel log from anywhere, whatever carries them and whatever a tool put before them: it is learned from the file's own lines,
 * wherever the kernel's text can be told by itself. Lines that were wrapped are joined. Numbers are those of the file.
 */
export function fieldLines(log: string): LogLine[] {
  const raw = carrierOf(log.slice(0, HEAD))?.(log) ?? rawLines(log);
  const learner = new FieldLearner();
  for (const { text } of raw) learner.push(text);
  const reader = new FieldReader(learner.field());
  return [...raw.flatMap((line) => reader.push(line)), ...reader.end()];
}

function clean(text: string): string {
  return stripVTControlCharacters(text);
}

/** The message of a line of journalctl -o json; the line itself if it is none. */
function messageIn(text: string): string {
  if (!text.includes('"MESSAGE"')) return text;
  try {
    const entry = text.slice(text.indexOf('{'), text.lastIndexOf('}') + 1);
    return journalMessage(JSON.parse(entry) as Record<string, unknown>) ?? text;
  } catch {
    return text;
  }
}

function isPrograms(prefix: string): boolean {
  if (AUDITED.test(prefix)) return true;
  return [...prefix.matchAll(PROGRAM)].some(([, name = '']) => !KERNELS_OWN.test(name));
}

/** Numbers differ from line to line, and columns by their width. */
function shapeOf(prefix: string): string {
  if (prefix.trim() === '') return `[ \\t]{1,${prefix.length}}`;
  return prefix
    .trimEnd()
    .replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
    .replace(/\b[TC]\d+/g, '[TC]\\d+')
    .replace(/\d+/g, '\\d+')
    .replace(/\s+/g, '\\s+')
    .concat(prefix.endsWith(' ') ? ' ?' : '');
}
