/** One line of a kernel log, as printed and with its decoration taken off. */
export interface LogLine {
  /** Line number in the file, from 1. */
  number: number;
  /** The message: no colour codes, no `[   12.345678]`, no caller id, no syslog prefix. */
  text: string;
  /** Seconds since boot, if the line carries a time stamp. */
  seconds?: number;
  /** A second time stamp stands inside the line: another CPU's message broke into it. */
  broken: boolean;
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: terminal escapes are what is removed here
const ESCAPES = /\u001b(?:\[[0-9;?]*[A-Za-z]|c)/g;
// A serial port that is read too slowly may double single characters (seen: `[[    6.665508]`, `9.244055]]`, `7..398294]`, `7.2284324]`).
const PREFIX = /^(?:<\d{1,2}>)?(?:\S.*? kernel: )?\[{1,2}\s*(\d+\.{1,2}\d{6,7})\]{1,2}(?:\[\s*[TC]\d+\])? ?/;
const INNER_STAMP = /\[\s*\d{1,7}\.\d{6}\]/;

/** Takes one raw line apart. Formats: printk's console and dmesg, `printk.caller`, syslog and journal prefixes. */
export function parseLine(raw: string, number: number): LogLine {
  const clean = raw.replace(ESCAPES, '').replace(/\r/g, '');
  const match = PREFIX.exec(clean);
  const text = match ? clean.slice(match[0].length) : clean;
  const line: LogLine = { number, text, broken: INNER_STAMP.test(text) };
  if (match?.[1]) line.seconds = Number(match[1].replace('..', '.'));
  return line;
}

/** All lines of a log. A last line without its newline is kept: a log may stop in the middle of one. */
export function parseLines(log: string): LogLine[] {
  const raw = log.split('\n');
  if (raw.at(-1) === '') raw.pop();
  return raw.map((line, index) => parseLine(line, index + 1));
}
