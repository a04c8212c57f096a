import { allBugs } from '../../bug/family.js';
import { soughtAmong } from '../../bug/sought.js';
import { classifyLog, type LogVerdict } from '../../outcome/classify.js';
import { printResult } from '../context.js';
import { readLog } from '../read-log.js';

/** `loopanic classify LOG|-`: what a kernel log from anywhere shows. */
export async function classify(args: {
  log: string;
  bug?: string | undefined;
  receiver?: string | undefined;
  json: boolean;
}): Promise<number> {
  const log = await readLog(args.log);
  const verdict = classifyLog(log, soughtAmong(args));
  const advice = adviceOn(verdict);
  printResult(args.json, { ...verdict, advice }, () => [
    ...describe(verdict),
    ...advice.map((line) => `  ${line}`),
  ]);
  return 0;
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
