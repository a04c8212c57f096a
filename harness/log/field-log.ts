import { stripVTControlCharacters } from 'node:util';
import { type LogLine, parseLine, standardPrefix } from './log-line.js';

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
    'Internal error: ',
    'INFO: task \\S+ blocked for',
    'Linux version \\d',
  ].join('|'),
);
/** A program's name before its text: what it says is not the kernel's, whatever it quotes. The kernel's own tag, and names of levels, are. */
const PROGRAM = /(?:^|[\s|])([A-Za-z][\w./-]*)(?:\[\d+\])?: /g;
const KERNELS_OWN = /^(?:kernel|kern|emerg|alert|crit|err|error|warn|warning|notice|info|debug|[VDIWEF])$/;
/** More kinds of prefixes than this no file has. */
const MOST_PREFIXES = 40;
const LONGEST_PREFIX = 160;

/**
 * Lines of a kernel log from anywhere, whatever a tool put before them: it is learned from the file's own lines, wherever the kernel's text can be
 * told by itself. journalctl's JSON is read, and lines that a terminal has wrapped are joined. Numbers are those of the file.
 */
export function fieldLines(log: string): LogLine[] {
  const raw = unwrapped(log.split('\n').map((line) => stripVTControlCharacters(line).replace(/\r/g, '')));
  if (raw.at(-1)?.text === '') raw.pop();
  const messages = raw.map(({ text, number }) => ({ text: journalMessage(text) ?? text, number }));
  const prefixes = learn(messages.map(({ text }) => text));
  return messages.flatMap(({ text, number }) => {
    for (const prefix of prefixes) {
      const found = prefix.exec(text);
      if (found) return parseLine(text.slice(found[0].length), number);
    }
    return parseLine(text, number);
  });
}

/** The message of a line of journalctl -o json; null if it is none, empty if it is not the kernel's. */
function journalMessage(text: string): string | null {
  if (!text.startsWith('{') || !text.includes('"MESSAGE"')) return null;
  try {
    const entry = JSON.parse(text) as Record<string, unknown>;
    if (typeof entry.MESSAGE !== 'string') return null;
    // journalctl --output-fields may leave out who said it.
    const { _TRANSPORT: transport, SYSLOG_IDENTIFIER: identifier } = entry;
    const isKernels = [transport, identifier].every((said) => said === undefined || said === 'kernel');
    return isKernels ? entry.MESSAGE : '';
  } catch {
    return null;
  }
}

/** What stands before the kernel's own words in these lines, as patterns, longest first. What loopanic knows as a prefix need not be learned. */
function learn(lines: readonly string[]): RegExp[] {
  const shapes = new Set<string>();
  for (const line of lines) {
    const at = BEGINNINGS.exec(line.slice(0, 400))?.index ?? 0;
    const prefix = line.slice(0, at);
    if (at === 0 || at > LONGEST_PREFIX || shapes.size >= MOST_PREFIXES) continue;
    // Its own is taken off in any case, and what is left then is a program's, or the kernel's.
    if (standardPrefix(line).length === at || isPrograms(prefix)) continue;
    shapes.add(shapeOf(prefix));
  }
  return [...shapes].sort((a, b) => b.length - a.length).map((shape) => new RegExp(`^${shape}`));
}

function isPrograms(prefix: string): boolean {
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

/** Joins what was wrapped at a fixed width: many lines have just that many characters, none has more, and what follows them begins like no message. */
function unwrapped(lines: readonly string[]): { text: string; number: number }[] {
  const numbered = lines.map((text, index) => ({ text, number: index + 1 }));
  const width = lines.reduce((most, line) => Math.max(most, line.length), 0);
  if (width < 60 || width > 200) return numbered;
  const isFull = (text: string): boolean => text.length === width || text.length === width - 1;
  if (lines.filter((line) => line.length === width).length < 3) return numbered;
  const joined: { text: string; number: number }[] = [];
  let open = false;
  for (const { text, number } of numbered) {
    const last = joined.at(-1);
    if (open && last && !beginsMessage(text)) last.text += text;
    else joined.push({ text, number });
    open = isFull(text);
  }
  return joined;
}

function beginsMessage(text: string): boolean {
  return text === '' || standardPrefix(text) !== '' || BEGINNINGS.exec(text)?.index === 0;
}
