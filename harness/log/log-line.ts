import { stripVTControlCharacters } from 'node:util';

/** One message of a kernel log, as printed and with its decoration taken off. */
export interface LogLine {
  /** Line number in the file, from 1. */
  number: number;
  /** The message alone: no colour codes, no time stamp, no caller id, no syslog prefix. */
  text: string;
  /** Another message broke into this one: the kernel's own text is not whole. */
  broken: boolean;
  /** Level of the message, where it is known: 0 (emergency) to 7 (debug). */
  level?: number;
}

// What may stand before a message: console log level, `dmesg -x`'s facility, a syslog or journal prefix, the time stamp (seconds, or
// `dmesg -T`'s date), the caller id of printk.caller. A serial port that is read too slowly may double single characters of the
// stamp (seen: `[[    6.665508]`, `9.244055]]`, `7..398294]`, `7.2284324]`).
const PREFIX = new RegExp(
  [
    /^(?:<\d{1,2}>)?/,
    /(?:[a-z]+ *:[a-z]+ *: )?/,
    /(?:(?:[A-Z][a-z]{2} +\d+ [\d:]{8}|\d{4}-\d\d-\d\dT\S+) \S+ kernel: ?)?/,
    /(?:\[{1,2}\s*\d+\.{1,2}\d{6,7}\]{1,2}|\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d [\d:]{8} \d{4}\])?/,
    /(?:\[\s*[TC]\d+\])? ?/,
  ]
    .map((part) => part.source)
    .join(''),
);
const STAMP = /^(?:<\d{1,2}>)?\[{1,2} *\d{1,7}\./;
/** More messages in one line are noise. */
const MOST_MESSAGES = 50;
const INNER_STAMP = /\[ {0,12}\d{1,7}\.\d{6}\]/;

/** What stands before the message in a line, of the forms that are always known; a lone space is part of the message. */
export function standardPrefix(line: string): string {
  const prefix = PREFIX.exec(line)?.[0] ?? '';
  return prefix.trim() === '' ? '' : prefix;
}

/**
 * Takes one raw line apart. Formats: printk's console and dmesg, `printk.caller`, syslog and journal prefixes. Where a second time stamp
 * stands inside, a second message does: behind a program's text on the same console (which is whole for the kernel), or in the middle of
 * another message of the kernel (then the first is broken).
 */
export function parseLine(raw: string, number: number): LogLine[] {
  const lines: LogLine[] = [];
  let rest = stripVTControlCharacters(raw).replace(/\r/g, '');
  for (;;) {
    const text = rest.replace(PREFIX, '');
    const inner = lines.length < MOST_MESSAGES ? INNER_STAMP.exec(text) : null;
    if (!inner) {
      lines.push({ number, text, broken: false });
      return lines;
    }
    lines.push({ number, text: text.slice(0, inner.index), broken: STAMP.test(rest) });
    rest = text.slice(inner.index);
  }
}

/** All lines of a log. A last line without its newline is kept: a log may stop in the middle of one. */
export function parseLines(log: string): LogLine[] {
  const raw = log.split('\n');
  if (raw.at(-1) === '') raw.pop();
  return raw.flatMap((line, index) => parseLine(line, index + 1));
}
