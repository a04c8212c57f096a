import { isMap, isScalar, LineCounter, type Node, parseDocument } from 'yaml';
import type * as z from 'zod';
import { firstLine, UsageError } from './errors.js';
import { exists } from './files.js';
import { readGiven } from './given-file.js';
import { nearest } from './nearest.js';

/** No file that people write is larger, and a parser takes a hundred times as much memory. */
const MOST_MIB = 4;

/** A YAML file, read and not yet checked. */
interface YamlFile {
  file: string;
  content: unknown;
  root: Node | null;
  lines: LineCounter;
}

/** How a file may be said to be like another one: the key that names it, and where that one is. */
export interface Inheritance {
  key: string;
  /** Path of the file that `name` in `file` means. Throws UsageError. */
  find: (name: string, file: string) => Promise<string>;
}

/**
 * Reads a YAML file and checks it against a schema. Every failure is a UsageError of one line: file:line: key: what is wrong. With
 * `inherit` a file takes from the one that it names what it does not say itself: maps key by key, anything else whole. A file with a key of
 * `foreign` is another kind of file, which is said.
 */
export async function readYaml<S extends z.ZodType>(
  file: string,
  schema: S,
  inherit?: Inheritance,
  foreign: Readonly<Record<string, string>> = {},
): Promise<z.output<S>> {
  const chain = [await parseFile(file)];
  if (inherit) await followChain(chain, inherit);
  let content = chain.at(-1)?.content;
  for (const { content: own } of chain.slice(0, -1).reverse()) content = overlay(content, own);
  if (inherit && isRecord(content)) delete content[inherit.key];
  for (const [own, what] of Object.entries(foreign))
    if (isRecord(content) && own in content && !knownKeys(schema, []).includes(own))
      throw new UsageError('bad-file', `${file}: ${what}`);
  const parsed = schema.safeParse(content);
  if (parsed.success) return parsed.data;

  // A key that is mistyped explains another that is missing.
  const { issues } = parsed.error;
  const issue = issues.find(({ code }) => code === 'unrecognized_keys') ?? issues[0];
  if (!issue) throw new UsageError('bad-file', `${file}: not valid`);
  const path = [...issue.path];
  let { message } = issue;
  if (issue.code === 'unrecognized_keys' && issue.keys[0] !== undefined) {
    const known = knownKeys(schema, path);
    const close = nearest(issue.keys[0], known, 1);
    const advice = close.length > 0 ? `did you mean ${close[0]}?` : `known keys: ${known.join(', ')}`;
    message = `unknown key; ${advice}`;
    path.push(issue.keys[0]);
  }
  const [, expected] = /^Invalid input: expected (.*), received undefined$/.exec(message) ?? [];
  if (expected !== undefined) message = `is missing (expected: ${expected})`;
  // The file that says it, of those that this one is like.
  const place = chain.find(({ content: own }) => has(own, path)) ?? chain[0];
  const line = place ? lineOf(place.root, path, place.lines) : 1;
  const key = path.length > 0 ? `${path.map(String).join('.')}: ` : '';
  throw new UsageError('bad-file', `${place?.file ?? file}:${line}: ${key}${message}`);
}

async function parseFile(file: string): Promise<YamlFile> {
  if (!(await exists(file))) throw new UsageError('no-such-file', `${file}: no such file`);
  const text = (await readGiven(file, MOST_MIB)).toString();
  const lines = new LineCounter();
  const document = parsed(file, text, lines);
  const broken = document.errors[0];
  if (broken) {
    const { line } = lines.linePos(broken.pos[0]);
    if (broken.code === 'MULTIPLE_DOCS')
      throw new UsageError('bad-yaml', `${file}:${line}: has more than one YAML document (---): one is read`);
    throw new UsageError('bad-yaml', `${file}:${line}: not valid YAML: ${broken.message.split('\n', 1)[0]}`);
  }
  let content: unknown;
  try {
    content = document.toJS();
  } catch (error) {
    throw new UsageError('bad-yaml', `${file}: not valid YAML: ${firstLine(error)}`, error);
  }
  if (content === null) throw new UsageError('bad-file', `${file}: is empty`);
  return { file, content, root: document.contents, lines };
}

/** Nested too deeply, a text is more than the parser's stack takes. */
function parsed(file: string, text: string, lineCounter: LineCounter): ReturnType<typeof parseDocument> {
  try {
    return parseDocument(text, { lineCounter, prettyErrors: false });
  } catch (error) {
    throw new UsageError('bad-yaml', `${file}: not valid YAML: ${firstLine(error)}`, error);
  }
}

/** Adds the files that the first one is like, nearest first. */
async function followChain(chain: YamlFile[], { key, find }: Inheritance): Promise<void> {
  for (let at = 0; at < chain.length; at++) {
    const { file, content, root, lines } = chain[at] as YamlFile;
    const name = isRecord(content) ? content[key] : undefined;
    if (name === undefined) return;
    const refuse = (why: string): UsageError =>
      new UsageError('bad-file', `${file}:${lineOf(root, [key], lines)}: ${key}: ${why}`);
    if (typeof name !== 'string') throw refuse('must be the name of another file');
    const next = await find(name, file);
    if (chain.some((other) => other.file === next)) throw refuse(`${name} is like this one itself`);
    chain.push(await parseFile(next));
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function overlay(below: unknown, above: unknown): unknown {
  if (!isRecord(below) || !isRecord(above)) return above;
  const merged: Record<string, unknown> = { ...below };
  for (const [key, value] of Object.entries(above)) merged[key] = overlay(below[key], value);
  return merged;
}

function has(content: unknown, path: readonly PropertyKey[]): boolean {
  let value = content;
  for (const part of path) {
    if (typeof value !== 'object' || value === null || !(part in value)) return false;
    value = (value as Record<PropertyKey, unknown>)[part];
  }
  return true;
}

/** Line of the deepest node on `path` that exists in the document; a key's own line where there is one. */
function lineOf(root: Node | null, path: PropertyKey[], lines: LineCounter): number {
  let node: unknown = root;
  let offset = root?.range?.[0] ?? 0;
  for (const part of path) {
    if (isMap(node)) {
      const pair = node.items.find((item) => isScalar(item.key) && item.key.value === part);
      if (!pair) break;
      offset = isScalar(pair.key) ? (pair.key.range?.[0] ?? offset) : offset;
      node = pair.value;
    } else if (typeof part === 'number' && node !== null && typeof node === 'object' && 'items' in node) {
      const item = (node.items as Node[])[part];
      if (!item) break;
      offset = item.range?.[0] ?? offset;
      node = item;
    } else break;
  }
  return lines.linePos(offset).line || 1;
}

function knownKeys(schema: z.ZodType, path: PropertyKey[]): string[] {
  type Def = { type: string; shape?: Record<string, z.ZodType>; innerType?: z.ZodType; element?: z.ZodType };
  let current: z.ZodType | undefined = schema;
  const unwrap = (type: z.ZodType | undefined): Def | undefined => {
    let def = type?.def as unknown as Def | undefined;
    while (def?.innerType) def = def.innerType.def as unknown as Def;
    return def;
  };
  for (const part of path) {
    const def = unwrap(current);
    current = typeof part === 'number' ? def?.element : def?.shape?.[String(part)];
  }
  return Object.keys(unwrap(current)?.shape ?? {});
}
