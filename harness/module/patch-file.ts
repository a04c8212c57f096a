import { stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { UsageError } from '../base/errors.js';
import { exists } from '../base/files.js';
import { insideOf, readGiven } from '../base/given-file.js';
import { unpacked, utf16 } from '../host/unpack.js';

/** What a patch does to one file. */
export interface FileChange {
  /** Its path as the patch has it, behind the folder that git and diff put before it. */
  path: string;
  /** The patch takes the file away, makes it, or moves it. */
  whole: 'deleted' | 'created' | 'renamed' | null;
  /** Its hunks, with their headers, as they stand. */
  hunks: string;
}

/** One patch: a file, or one mail of a mailbox. */
export interface Patch {
  /** File name; in a mailbox with the number of the mail. */
  name: string;
  /** Subject of a mail; null if it is none. */
  subject: string | null;
  changes: FileChange[];
}

/** No patch is larger. */
const MOST_MIB = 64;
const MOST_LINES = 2_000_000;
const MOST_PATCHES = 1000;
/** Parts of mails in parts of mails. */
const MOST_DEPTH = 20;

/**
 * The patches that a file or folder holds, in order: a unified diff (of git, diff, quilt or Subversion), a mail or a mailbox in whatever transfer
 * encoding, any of them packed or in UTF-16; a folder with a quilt series, or that series itself. Throws UsageError, with file and line.
 */
export async function readPatches(path: string): Promise<Patch[]> {
  return patchesIn(path, false);
}

/** `isListed`: a series names it, so it is a patch and no series. */
async function patchesIn(path: string, isListed: boolean): Promise<Patch[]> {
  const info = await stat(path).catch((error: unknown) => {
    throw new UsageError('no-such-patch', `${path}: cannot be read (${(error as Error).message})`, error);
  });
  if (isListed && (!info.isFile() || basename(path) === 'series'))
    throw new UsageError('not-a-patch', `${path}: is named by a series, and is no patch`);
  if (info.isDirectory()) return readSeries(await seriesOf(path));
  if (!info.isFile()) throw new UsageError('not-a-patch', `${path}: is neither a file nor a folder`);
  if (basename(path) === 'series') return readSeries(path);
  const content = await unpacked(await readGiven(path, MOST_MIB), path, MOST_MIB * 2 ** 20);
  // A character for each byte, whatever the encoding: it goes to patch(1) as it came.
  const wide = utf16(content);
  const bytes = wide === null ? content : Buffer.from(wide);
  const text = bytes.toString('latin1').replace(/^\u00EF\u00BB\u00BF/, '');
  let lines = 0;
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) lines++;
  if (lines > MOST_LINES) throw new UsageError('not-a-patch', `${path}: has more than ${MOST_LINES} lines`);
  const mails = mailsOf(text);
  return mails.map((mail, index) => {
    const name = mails.length > 1 ? `${basename(path)}#${index + 1}` : basename(path);
    return { name, subject: mail.subject, changes: changesOf(mail.body, path) };
  });
}

/** True of a folder that holds a quilt series. */
export async function hasSeries(dir: string): Promise<boolean> {
  for (const place of [dir, join(dir, 'patches')]) if (await exists(join(place, 'series'))) return true;
  return false;
}

async function seriesOf(dir: string): Promise<string> {
  for (const place of [dir, join(dir, 'patches')])
    if (await exists(join(place, 'series'))) return join(place, 'series');
  throw new UsageError('no-series', `${dir}: there is no series of patches in it (series, patches/series)`);
}

/** Names, one a line, each with options of patch(1) behind it; # begins a comment. */
async function readSeries(file: string): Promise<Patch[]> {
  const dir = dirname(file);
  const patches: Patch[] = [];
  for (const [index, line] of (await readGiven(file, MOST_MIB)).toString().split('\n').entries()) {
    const [name = ''] = line
      .replace(/(^|\s)#.*/, '')
      .trim()
      .split(/\s+/);
    if (name === '') continue;
    if (!(await exists(join(dir, name))))
      throw new UsageError('no-such-patch', `${file}:${index + 1}: ${name}: there is no such file`);
    await insideOf(dir, join(dir, name), 'not-a-patch');
    patches.push(...(await patchesIn(join(dir, name), true)));
    if (patches.length > MOST_PATCHES)
      throw new UsageError('not-a-patch', `${file}: names more than ${MOST_PATCHES} patches`);
  }
  if (patches.length === 0) throw new UsageError('not-a-patch', `${file}: names no patch`);
  return patches;
}

interface Mail {
  subject: string | null;
  body: string;
}

const MBOX = /^From \S+ .*\d{4}$/;
const HEADER = /^[A-Za-z][A-Za-z-]*: /;

/** The mails of a mailbox, or the one that the text is; a text without a header is its own body. */
function mailsOf(text: string): Mail[] {
  const lines = text.replaceAll('\r\n', '\n').split('\n');
  const starts = lines.flatMap((line, index) =>
    MBOX.test(line) && HEADER.test(lines[index + 1] ?? '') ? [index] : [],
  );
  if (starts.length === 0) {
    if (!/^(?:From|Subject|Date|Return-Path|Received|Message-I[Dd]|MIME-Version): /.test(text))
      return [{ subject: null, body: lines.join('\n') }];
    return [mailOf(lines)];
  }
  return starts.map((start, index) => mailOf(lines.slice(start + 1, starts[index + 1])));
}

function mailOf(lines: readonly string[]): Mail {
  const end = lines.indexOf('');
  const headers = headersOf(lines.slice(0, end < 0 ? lines.length : end));
  const body = lines.slice(end < 0 ? lines.length : end + 1).join('\n');
  const subject = headers.get('subject') ?? null;
  return { subject, body: textOf(headers, body) };
}

function headersOf(lines: readonly string[]): Map<string, string> {
  const headers = new Map<string, string>();
  let last = '';
  for (const line of lines)
    if (/^\s/.test(line)) headers.set(last, `${headers.get(last) ?? ''} ${line.trim()}`);
    else {
      const at = line.indexOf(':');
      last = line.slice(0, at).toLowerCase();
      headers.set(last, line.slice(at + 1).trim());
    }
  return headers;
}

/** The text of a mail, or of all its parts that are text, decoded. */
function textOf(headers: ReadonlyMap<string, string>, body: string, depth = 0): string {
  if (depth > MOST_DEPTH) return '';
  const type = headers.get('content-type') ?? 'text/plain';
  const boundary = /^multipart\/.*boundary="?([^";]+)"?/i.exec(type)?.[1];
  if (boundary !== undefined)
    return body
      .split(`--${boundary}`)
      .slice(1)
      .map((part) => part.replace(/^\n/, ''))
      .filter((part) => !part.startsWith('--'))
      .map((part) => {
        const lines = part.split('\n');
        const end = lines.indexOf('');
        return textOf(
          headersOf(lines.slice(0, Math.max(end, 0))),
          lines.slice(end + 1).join('\n'),
          depth + 1,
        );
      })
      .join('\n');
  if (!/^(?:text\/|application\/octet-stream|message\/rfc822)/i.test(type)) return '';
  switch (headers.get('content-transfer-encoding')?.toLowerCase()) {
    case 'base64':
      return Buffer.from(body, 'base64').toString('latin1').replaceAll('\r\n', '\n');
    case 'quoted-printable':
      return body
        .split('\n')
        .map((line) => (line.trimEnd().endsWith('=') ? line.trimEnd().slice(0, -1) : `${line}\n`))
        .join('')
        .replace(/=([0-9A-Fa-f]{2})/g, (_, code: string) => String.fromCharCode(Number.parseInt(code, 16)));
    default:
      return body;
  }
}

const HUNK = /^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@/;

/**
 * The changes of a unified diff. Only a whole header (---, +++ and a hunk behind them) is one: a message may hold words that look like it. Throws UsageError if a
 * hunk is cut.
 */
function changesOf(text: string, file: string): FileChange[] {
  const lines = text.split('\n');
  const changes: FileChange[] = [];
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at] ?? '';
    const renamed = /^rename to (.+)$/.exec(line)?.[1];
    if (renamed !== undefined) changes.push({ path: renamed, whole: 'renamed', hunks: '' });
    const from = /^--- (\S+)/.exec(line)?.[1];
    const to = /^\+\+\+ (\S+)/.exec(lines[at + 1] ?? '')?.[1];
    if (from === undefined || to === undefined || !HUNK.test(lines[at + 2] ?? '')) continue;
    const start = at + 2;
    at = endOfHunks(lines, start, file);
    const whole = to === '/dev/null' ? 'deleted' : from === '/dev/null' ? 'created' : null;
    changes.push({
      path: pathOf(from, to),
      whole,
      hunks: `${lines.slice(start, at).join('\n')}\n`,
    });
    at--;
  }
  return changes;
}

/** The new name, without the folder that git and diff put before it, which is another on each side; Subversion and .orig have none. */
function pathOf(from: string, to: string): string {
  const [old, now] = [from.replace(/\.orig$/, ''), to];
  const name = now === '/dev/null' ? old : now;
  const hasFolder = old !== now || /^[ab]\//.test(name);
  return hasFolder && name.includes('/') && !from.endsWith('.orig') ? name.replace(/^[^/]+\//, '') : name;
}

/** Index behind the hunks that begin at `start`. */
function endOfHunks(lines: readonly string[], start: number, file: string): number {
  let at = start;
  for (;;) {
    const [, , oldCount = '1', , newCount = '1'] = HUNK.exec(lines[at] ?? '') ?? [];
    if (!HUNK.test(lines[at] ?? '')) return at;
    const header = at++;
    let [old, now] = [Number(oldCount), Number(newCount)];
    while (old > 0 || now > 0) {
      const line = lines[at];
      // An empty line of context whose blank a mail program took away.
      const kind = line === '' && old > 0 && now > 0 ? ' ' : line?.[0];
      if (kind === ' ') [old, now] = [old - 1, now - 1];
      else if (kind === '-') old--;
      else if (kind === '+') now--;
      else if (kind !== '\\')
        throw new UsageError(
          'damaged-patch',
          `${file}: the hunk ${lines[header]} is cut: ${old} old and ${now} new lines of it are missing`,
        );
      at++;
    }
    if (lines[at]?.startsWith('\\ No newline')) at++;
  }
}

/** The diff of changes as patch(1) takes it, with their places in the kernel's source. */
export function diffText(changes: readonly { place: string; hunks: string }[]): string {
  return changes.map(({ place, hunks }) => `--- a/${place}\n+++ b/${place}\n${hunks}`).join('');
}
