import { readFile } from 'node:fs/promises';
import { isMap, isScalar, LineCounter, type Node, parseDocument } from 'yaml';
import type * as z from 'zod';
import { firstLine, hasErrno, UsageError } from './errors.js';
import { nearest } from './nearest.js';

/**
 * Reads a YAML file and checks it against a schema. Every failure is a UsageError of one line: file:line: key: what is wrong.
 */
export async function readYaml<S extends z.ZodType>(file: string, schema: S): Promise<z.output<S>> {
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    if (hasErrno(error, 'ENOENT')) throw new UsageError('no-such-file', `${file}: no such file`, error);
    throw new UsageError('unreadable-file', `${file}: cannot be read (${(error as Error).message})`, error);
  });
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
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
  const parsed = schema.safeParse(content);
  if (parsed.success) return parsed.data;

  const issue = parsed.error.issues[0];
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
  const line = lineOf(document.contents, path, lines);
  const key = path.length > 0 ? `${path.map(String).join('.')}: ` : '';
  throw new UsageError('bad-file', `${file}:${line}: ${key}${message}`);
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
