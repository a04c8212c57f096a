import { decodeHTML } from 'entities';
import { LONGEST_LINE, type RawLine, rawLines } from './raw-line.js';

/** How many characters from its beginning tell what a text is carried by. */
export const HEAD = 64 * 1024;

type Carrier = (text: string) => RawLine[] | null;

/** HTML's own elements; a kernel writes `<TASK>`, `<IRQ>`, `<ffffffff81000000>`. */
const BREAK =
  'br|p|div|li|ul|ol|tr|pre|h[1-6]|table|tbody|thead|blockquote|section|article|body|html|head|title';
const INLINE =
  'a|b|i|u|em|strong|span|code|tt|td|th|font|samp|kbd|img|small|mark|script|style|meta|link|button|svg|path|input|label';
const BREAKS = new RegExp(`</?(?:${BREAK})(?:\\s[^<>]{0,2000})?/?>`, 'gi');
const INLINES = new RegExp(`</?(?:${INLINE})(?:\\s[^<>]{0,2000})?/?>`, 'gi');
const LOOKS_HTML = new RegExp(`<(?:!doctype html|(?:${BREAK}|span|td|code)(?:\\s[^<>]{0,2000})?/?>)`, 'i');
const ENTITY = /&(?:lt|gt|amp|quot|apos|nbsp|#\d{1,5}|#x[0-9a-f]{1,5});/i;

/**
 * What carries a log besides plain text, by its beginning: HTML, JSON, a mail in quoted-printable or base64. Null if it is plain. These are
 * read whole; all else line by line.
 */
export function carrierOf(head: string): Carrier | null {
  if (/^\s*[{[]\s*["{[]/.test(head) && !/^\s*\{.*\}\s*\n\s*\{/.test(head)) return carriedByJson;
  const encoding = /^Content-Transfer-Encoding:\s*(quoted-printable|base64)/im.exec(head)?.[1]?.toLowerCase();
  if (encoding !== undefined || softBreaks(head) >= 3) return carriedByMail;
  if (LOOKS_HTML.test(head) || ENTITY.test(head)) return carriedByHtml;
  return null;
}

/** Lines that end as quoted-printable ends those that it breaks. */
function softBreaks(text: string): number {
  return text.match(/^.{60,75}=\r?$/gm)?.length ?? 0;
}

function carriedByHtml(text: string): RawLine[] {
  return rawLines(text).flatMap(({ text: line, number }) =>
    line
      .replace(BREAKS, '\n')
      .replace(INLINES, ' ')
      .split('\n')
      .filter((part, index, all) => part.trim() !== '' || all.length === 1 || index === 0)
      .map((part) => ({ text: latin1(decodeHTML(part)), number })),
  );
}

/** A no-break space is one that was to be kept. */
function latin1(text: string): string {
  return text.replaceAll('\u00A0', ' ');
}

/** Every text of a JSON document, in its order. Null if it is none: a line of JSON in a log is read as such. */
function carriedByJson(text: string): RawLine[] | null {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    return null;
  }
  if (depthOf(text) > MOST_DEPTH) return null;
  const found: string[] = [];
  const visit = (value: unknown): void => {
    if (typeof value === 'string') for (const line of value.split('\n')) found.push(line);
    else if (isRecord(value) && 'MESSAGE' in value) found.push(journalMessage(value) ?? '');
    else if (typeof value === 'object' && value !== null)
      for (const inner of Object.values(value)) visit(inner);
  };
  visit(document);
  return found.map((line, index) => ({ text: line.slice(0, LONGEST_LINE), number: index + 1 }));
}

/** How deep brackets stand in one another at most, strings left out of account: more than a document of logs has is none. */
function depthOf(text: string): number {
  let [depth, most] = [0, 0];
  for (const [sign] of text.matchAll(/[[\]{}]/g)) {
    depth += sign === '[' || sign === '{' ? 1 : -1;
    most = Math.max(most, depth);
  }
  return most;
}
const MOST_DEPTH = 1000;

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** The message of an entry of the journal (journalctl -o json), empty if it is not the kernel's; null if there is none. */
export function journalMessage(entry: Record<string, unknown>): string | null {
  const { MESSAGE: message, _TRANSPORT: transport, SYSLOG_IDENTIFIER: identifier } = entry;
  // journalctl writes a message with control characters in it as its bytes.
  const text = Array.isArray(message) ? Buffer.from(message as number[]).toString('latin1') : message;
  if (typeof text !== 'string') return null;
  // --output-fields may leave out who said it.
  const isKernels = [transport, identifier].every((said) => said === undefined || said === 'kernel');
  return isKernels ? text : '';
}

/** A mail, or several: parts in quoted-printable and base64 are decoded, all else stays as it is. */
function carriedByMail(text: string): RawLine[] {
  const lines: RawLine[] = [];
  const all = rawLines(text);
  let encoding = softBreaks(text.slice(0, HEAD)) >= 3 ? 'quoted-printable' : '';
  let inHeader = false;
  for (let index = 0; index < all.length; index++) {
    const { text: line, number } = all[index] as RawLine;
    const named = /^Content-Transfer-Encoding:\s*([\w-]+)/i.exec(line)?.[1]?.toLowerCase();
    if (named !== undefined) {
      encoding = named;
      inHeader = true;
    }
    if (line.trim() === '') inHeader = false;
    if (!inHeader && encoding === 'base64' && /^[A-Za-z0-9+/]{20,76}={0,2}$/.test(line)) {
      const from = index;
      while (/^[A-Za-z0-9+/]{1,76}={0,2}$/.test(all[index + 1]?.text ?? '')) index++;
      lines.push(...unBase64(all.slice(from, index + 1)));
    } else if (!inHeader && encoding === 'quoted-printable') {
      let whole = line;
      while (whole.endsWith('=') && index + 1 < all.length && whole.length < LONGEST_LINE)
        whole = whole.slice(0, -1) + (all[++index]?.text ?? '');
      const decoded = whole.replace(/=([0-9A-F]{2})/gi, (_, hex: string) =>
        String.fromCharCode(Number.parseInt(hex, 16)),
      );
      lines.push({ text: decoded, number });
    } else lines.push({ text: line, number });
  }
  return lines;
}

/** Each line of what these lines of base64 hold, with the number of the one in which it begins. */
function unBase64(packed: RawLine[]): RawLine[] {
  const text = Buffer.from(packed.map((line) => line.text).join(''), 'base64').toString('latin1');
  const bytesEach = ((packed[0]?.text.length ?? 0) * 3) / 4;
  let offset = 0;
  return text.split('\n').map((line) => {
    const number = packed[Math.floor(offset / bytesEach)]?.number ?? packed[0]?.number ?? 1;
    offset += line.length + 1;
    return { text: line.replace(/\r$/, '').slice(0, LONGEST_LINE), number };
  });
}
