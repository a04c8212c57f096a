import { readFile } from 'node:fs/promises';
import { text } from 'node:stream/consumers';
import { UsageError } from '../../base/errors.js';
import { soughtAmong } from '../../bug/sought.js';
import { classifyLog, type LogVerdict } from '../../outcome/classify.js';
import { printResult, STDIN } from '../context.js';

/** `loopanic classify LOG|-`: what a kernel log from anywhere shows. */
export async function classify(args: {
  log: string;
  bug?: string | undefined;
  receiver?: string | undefined;
  json: boolean;
}): Promise<number> {
  const log = await readLog(args.log);
  const verdict = classifyLog(log, soughtAmong(args));
  printResult(args.json, verdict, () => describe(verdict));
  return 0;
}

async function readLog(path: string): Promise<string> {
  // Not by its path: a stdin that is a socket cannot be opened.
  if (path === STDIN) return text(process.stdin);
  try {
    return await readFile(path, 'latin1');
  } catch (error) {
    throw new UsageError('unreadable-log', `${path}: cannot be read (${(error as Error).message})`, error);
  }
}

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
  for (const entry of verdict.evidence) lines.push(`  line ${entry.line}: ${entry.text}`);
  if (verdict.warnings.length > 0)
    lines.push(`  warnings ${verdict.warnings.length}, first at line ${verdict.warnings[0]?.line}`);
  return lines;
}
