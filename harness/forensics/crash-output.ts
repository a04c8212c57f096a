/** Readers of what crash(8) prints. Layouts differ between versions, so columns are found by their headings. */

export interface Backtrace {
  pid: number;
  task: string;
  cpu: number;
  comm: string;
  /** Functions, outermost last, as `bt` lists them. */
  stack: string[];
}

/** `bt` of the panicked task. */
export function parseBacktrace(text: string): Backtrace | null {
  const head = /PID: (\d+)\s+TASK: ([0-9a-f]+)\s+CPU: (\d+)\s+COMMAND: "(.*)"/.exec(text);
  if (!head) return null;
  const stack = [...text.matchAll(/^\s*#\d+ \[[0-9a-f]+\] ([\w.$]+) at /gm)].map((match) => match[1] ?? '');
  return { pid: Number(head[1]), task: head[2] ?? '', cpu: Number(head[3]), comm: head[4] ?? '', stack };
}

/** A stack word that crash found to point into a slab object. */
export interface LabelledWord {
  /** Function whose frame holds the word. */
  frame: string;
  address: string;
  cache: string;
}

/** The labelled words of `bt -FF`, in stack order. */
export function parseLabelledWords(text: string): LabelledWord[] {
  const words: LabelledWord[] = [];
  // crash prints a frame's words below its heading.
  let frame = '';
  for (const line of text.split('\n')) {
    const heading = /^\s*#\d+ \[[0-9a-f]+\] ([\w.$]+) at /.exec(line);
    if (heading?.[1]) frame = heading[1];
    for (const [, address = '', cache = ''] of line.matchAll(/\[([0-9a-f]{16}):([^\]]+)\]/g))
      words.push({ frame, address, cache });
  }
  return words;
}

/** `struct X.a,b ADDRESS`: member values as printed, by name. */
export function parseMembers(text: string): Record<string, string> {
  const members: Record<string, string> = {};
  for (const [, name = '', value = ''] of text.matchAll(/^\s*([\w]+) = (.*?),?\s*$/gm))
    members[name] ??= value;
  return members;
}

export interface Fragment {
  page: string;
  /** Bytes into the page. */
  offset: number;
  size: number;
}

/**
 * `struct skb_shared_info.frags`: skb_frag_t is a bio_vec since 5.4 (bv_page, bv_len, bv_offset), before that {page.p, page_offset,
 * size}.
 */
export function parseFragments(text: string, count: number): Fragment[] {
  const number = (value: string | undefined): number => Number(value ?? 0);
  const now = [...text.matchAll(/bv_page = (0x[0-9a-f]+),\s*bv_len = (\w+),\s*bv_offset = (\w+)/g)].map(
    (match) => ({
      page: match[1] ?? '',
      size: number(match[2]),
      offset: number(match[3]),
    }),
  );
  const old = [...text.matchAll(/p = (0x[0-9a-f]+)\s*\},\s*page_offset = (\w+),\s*size = (\w+)/g)].map(
    (match) => ({ page: match[1] ?? '', offset: number(match[2]), size: number(match[3]) }),
  );
  return (now.length > 0 ? now : old).slice(0, count);
}

export interface SlabObject {
  cache: string;
  objectSize: number;
  /** As crash prints it: `32k`. */
  slabSize: string;
  /** struct page of the slab's head. */
  headPage: string;
  /** First byte of the object, if crash names it. */
  base: string | null;
  allocated: boolean;
  /** struct page that holds the object's first byte. */
  page: string;
  /** Its physical address. */
  physical: string;
}

/** `kmem ADDRESS` of a slab object, or null if the address is none. */
export function parseKmem(text: string): SlabObject | null {
  const lines = text.split('\n');
  const row = (heading: RegExp): Record<string, string> | null => {
    const at = lines.findIndex((line) => heading.test(line));
    const names = lines[at]?.trim().split(/\s+/) ?? [];
    const values = lines[at + 1]?.trim().split(/\s+/) ?? [];
    return at < 0 ? null : Object.fromEntries(names.map((name, index) => [name, values[index] ?? '']));
  };
  const cache = row(/^CACHE\s/);
  const slab = row(/^\s*SLAB\s+MEMORY/);
  const page = row(/^\s*PAGE\s+PHYSICAL/);
  if (!cache || !slab || !page) return null;
  const list = lines.findIndex((line) => /FREE \/ \[ALLOCATED\]/.test(line));
  return {
    cache: cache.NAME ?? '',
    objectSize: Number(cache.OBJSIZE),
    slabSize: cache.SSIZE ?? '',
    headPage: slab.SLAB ?? '',
    base: /\[?([0-9a-f]{16})\]?/.exec(lines[list + 1] ?? '')?.[1] ?? null,
    allocated: /\[[0-9a-f]+\]/.test(lines[list + 1] ?? ''),
    page: page.PAGE ?? '',
    physical: page.PHYSICAL ?? '',
  };
}

/** The bytes of `rd -8 ADDRESS COUNT`. */
export function parseBytes(text: string): Buffer {
  const bytes: number[] = [];
  for (const line of text.split('\n')) {
    const match = /^[0-9a-f]{8,}:\s+((?:[0-9a-f]{2} )+)/.exec(line);
    for (const byte of match?.[1]?.trim().split(' ') ?? []) bytes.push(Number.parseInt(byte, 16));
  }
  return Buffer.from(bytes);
}

/** The value of `p EXPRESSION`: `$3 = 12345`. */
export function parseValue(text: string): number | null {
  const match = /\$\d+ = (0x[0-9a-f]+|\d+)/.exec(text);
  return match?.[1] ? Number(match[1]) : null;
}

/** The addresses of `list`. */
export function parseAddresses(text: string): string[] {
  return [...text.matchAll(/^([0-9a-f]{16})$/gm)].map((match) => match[1] ?? '');
}
