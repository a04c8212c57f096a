import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import picomatch from 'picomatch';
import { EXIT, firstLine, UsageError } from '../../base/errors.js';
import { allBugs } from '../../bug/family.js';
import { type Sought, soughtAmong } from '../../bug/sought.js';
import { LogClassifier, type LogVerdict } from '../../log/classify.js';
import { FieldLearner, FieldReader } from '../../log/field-log.js';
import { printResult } from '../context.js';
import { openLog } from '../read-log.js';
import { STDIN } from '../stdin.js';

export interface ClassifyArgs {
  logs: string[];
  bug?: string | undefined;
  receiver?: string | undefined;
  exitCode: boolean;
  json: boolean;
}

/** What `--exit-code` ends with, by the worst outcome of all logs. */
const EXIT_OF = { 'no-crash': EXIT.ok, reproduced: EXIT.unexpected, 'other-crash': EXIT.noVerdict } as const;

/** `loopanic classify LOG...`: what kernel logs from anywhere show. */
export async function classify(args: ClassifyArgs): Promise<number> {
  const soughts = soughtAmong(args);
  const files = (await Promise.all(args.logs.map(filesOf))).flat();
  const classified = async (file: string) => {
    const verdict = await classifySource(file, soughts);
    return { ...verdict, advice: adviceOn(verdict) };
  };
  const [only] = files;
  if (files.length === 1 && only !== undefined && args.logs[0] === only) {
    const found = await classified(only);
    printResult(args.json, found, () => [...describe(found), ...found.advice.map((line) => `  ${line}`)]);
    return args.exitCode ? EXIT_OF[found.outcome] : EXIT.ok;
  }
  const rows: ({ file: string } & (Awaited<ReturnType<typeof classified>> | { error: string }))[] = [];
  for (const file of files)
    rows.push({
      file,
      ...(await classified(file).catch((error: unknown) => {
        if (error instanceof UsageError) return { error: firstLine(error) };
        throw error;
      })),
    });
  printResult(args.json, { files: rows }, () =>
    rows.map((row) =>
      'error' in row
        ? `error: ${row.error}`
        : `${row.file}: ${row.outcome}${row.bug === null ? '' : ` ${row.bug}`}: ${row.reason}${row.warnings.length > 0 ? `; ${row.warnings.length} warnings` : ''}`,
    ),
  );
  if (rows.some((row) => 'error' in row)) return EXIT.usage;
  const codes = rows.map((row) => ('outcome' in row ? EXIT_OF[row.outcome] : EXIT.ok));
  const worst = [EXIT.unexpected, EXIT.noVerdict].find((code) => codes.includes(code));
  return args.exitCode ? (worst ?? EXIT.ok) : EXIT.ok;
}

/** What a log shows. It is gone through twice: first to learn how its lines are written. */
async function classifySource(file: string, soughts: readonly Sought[]): Promise<LogVerdict> {
  await using source = await openLog(file);
  const learner = new FieldLearner();
  for await (const lines of source.lines()) for (const { text } of lines) learner.push(text);
  const reader = new FieldReader(learner.field());
  const classifier = new LogClassifier(soughts);
  for await (const lines of source.lines())
    for (const raw of lines) for (const line of reader.push(raw)) classifier.push(line);
  for (const line of reader.end()) classifier.push(line);
  return classifier.verdict();
}

/** The files that a word on the command line stands for: itself, those in a folder, or what fits a pattern. Throws UsageError if there is none. */
async function filesOf(path: string): Promise<string[]> {
  const found = await stat(path).catch(() => null);
  if (found?.isDirectory()) return filesIn(path, path, () => true);
  const glob = picomatch.scan(path);
  if (found || path === STDIN || !glob.isGlob) return [path];
  return filesIn(glob.base || '.', path, picomatch(path));
}

async function filesIn(dir: string, asked: string, fits: (path: string) => boolean): Promise<string[]> {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true }).catch(() => []);
  const files = entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((file) => fits(file));
  if (files.length === 0) throw new UsageError('no-such-file', `${asked}: there is no such file`);
  return files.sort();
}

/** What is known of a bug that was found and of the kernel that had it, what to do, and how to see it here. */
function adviceOn({ bug: id, kernel }: LogVerdict): string[] {
  const bug = allBugs().find((entry) => entry.id === id);
  if (!bug) return [];
  const known = kernel === null ? null : bug.known(kernel);
  return [
    `bug ${bug.id}: ${bug.summary}`,
    ...(known === null ? [] : [`kernel ${kernel}: ${known}`]),
    ...bug.remedies.map((remedy, index) => `${index === 0 ? 'what helps' : 'or'}: ${remedy}`),
    `see it here: npx loopanic run ${bug.shownBy}${bug.control === 'stock' ? '' : ` --module ${bug.control}`}; more: npx loopanic bug show ${bug.id}`,
  ];
}

/** More of the other crashes than this are counted only. */
const MOST_OTHERS = 5;

function describe(verdict: LogVerdict): string[] {
  const bug = verdict.bug === null ? '' : ` ${verdict.bug}`;
  const lines = [`${verdict.outcome}${bug}${verdict.corrupted ? ' (corrupted)' : ''}: ${verdict.reason}`];
  const { signature } = verdict;
  if (signature) {
    const bug = signature.bug ? `${signature.bug.file}:${signature.bug.line}` : 'unknown';
    const size =
      signature.objectSize === null
        ? ''
        : `, objectSize ${signature.objectSize}, objects ${signature.objects}`;
    lines.push(
      `  object   ${signature.object}, length ${signature.length}${size}`,
      `  bug      ${bug}`,
      `  task     ${signature.comm}, pid ${signature.pid}, cpu ${signature.cpu}`,
      `  kernel   ${signature.kernel}`,
      `  stack    ${signature.stack.join(' < ')}`,
    );
  }
  // What else is in it: people paste whole logs.
  const { leftOut } = verdict;
  const others = verdict.crashes.filter(({ line }) => line !== verdict.evidence[0]?.line);
  for (const { line, title, bug } of others.slice(0, MOST_OTHERS))
    lines.push(`  also     line ${line}: ${title}${bug === null ? '' : ` (${bug})`}`);
  const more = others.length - MOST_OTHERS + leftOut.crashes;
  if (more > 0) lines.push(`  also     ${more} more crashes`);
  for (const entry of verdict.evidence) lines.push(`  line ${entry.line}: ${entry.text}`);
  if (verdict.warnings.length > 0)
    lines.push(
      `  warnings ${verdict.warnings.length + leftOut.warnings}, first at line ${verdict.warnings[0]?.line}`,
    );
  return lines;
}
