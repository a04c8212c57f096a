import { stripVTControlCharacters } from 'node:util';

/** One line of a kernel log, as printed and with its decoration taken off. */
export interface LogLine {
  /** Line number in the file, from 1. */
  number: number;
  /** The message alone: no colour codes, no time stamp, no caller id, no syslog prefix. */
  text: string;
  /** A second time stamp stands inside the line: another CPU's message broke into it. */
  broken: boolean;
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
const INNER_STAMP = /\[\s*\d{1,7}\.\d{6}\]/;

/** Takes one raw line apart. Formats: printk's console and dmesg, `printk.caller`, syslog and journal prefixes. */
export function parseLine(raw: string, number: number): LogLine {
  const clean = stripVTControlCharacters(raw).replace(/\r/g, '');
  const text = clean.replace(PREFIX, '');
  return { number, text, broken: INNER_STAMP.test(text) };
}

/** All lines of a log. A last line without its newline is kept: a log may stop in the middle of one. */
export function parseLines(log: string): LogLine[] {
  const raw = log.split('\n');
  if (raw.at(-1) === '') raw.pop();
  return raw.map((line, index) => parseLine(line, index + 1));
}
