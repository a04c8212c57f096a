import { allSought, type Sought } from '../bug/sought.js';
import { isComplaint } from './complaints.js';
import { CrashReader, type CrashReport } from './crash-report.js';
import { fieldLines } from './field-log.js';
import type { LogLine } from './log-line.js';
import { matchSought, type Signature, signatureOf } from './signature.js';

/** A place in a log. */
export interface LogEvidence {
  /** Line number, from 1. */
  line: number;
  text: string;
}

/** One crash of a log that may hold several. */
export interface LogCrash {
  /** Its first line, and the last that was read as part of it. */
  line: number;
  lastLine: number;
  title: string;
  outcome: 'reproduced' | 'other-crash';
  bug: string | null;
  corrupted: boolean;
}

/** What a kernel log says by itself, whoever recorded it. */
export interface LogVerdict {
  /** A log cannot show that a workload ended, so without a crash it is `no-crash`, never `survived`. */
  outcome: 'reproduced' | 'other-crash' | 'no-crash';
  /** One line: why this outcome. */
  reason: string;
  signature: Signature | null;
  /** Which bug of the family it is; null if none. */
  bug: string | null;
  /** The crash report is too damaged to tell what it is. */
  corrupted: boolean;
  /** Release of the kernel that wrote the log, if the log names it. */
  kernel: string | null;
  /** Every crash in the log, in order: the one that decides among them. */
  crashes: LogCrash[];
  /** First crash line, its BUG line and its last line. */
  evidence: LogEvidence[];
  /** Kernel warnings and I/O errors. */
  warnings: LogEvidence[];
}

const BANNER = /Linux version (\d+\.\d+\S*)/;
// A shutdown that was asked for (XFS_IOC_GOINGDOWN, xfs_fs_goingdown() in fs/xfs/xfs_fsops.c) is logged as an error, and what is under
// way then fails with EIO (-5), never with another error or as corruption. It ends with the unmount. The workload says "shutdown" before
// it and "unmounted" after it.
const SHUTDOWN_BEGINS =
  /loopanic:[0-9a-f]+:\d*:? shutdown$|XFS \(\w+\): User initiated shutdown|xfs_fs_goingdown|xfs_do_force_shutdown\(0x2\)/;
const SHUTDOWN_ENDS = /loopanic:[0-9a-f]+:\d*:? unmounted$|XFS \(\w+\): Unmounting Filesystem/;
const WANTED =
  /XFS \(\w+\): (?:User initiated shutdown|.{0,60}xfs_fs_goingdown|xfs_do_force_shutdown\(0x[12]\)|Please u(?:n)?mount the filesystem and rectify)|XFS \(\w+\): .{0,120}error -?5\b/i;

/**
 * Reads a kernel log (serial console, dmesg, vmcore-dmesg) and says what it shows: one of what is sought, by default any bug of the
 * family.
 */
export function classifyLog(log: string, soughts: readonly Sought[] = allSought()): LogVerdict {
  return classifyLines(fieldLines(log), soughts, 'any');
}

/** The same for lines that were taken apart already. */
export function classifyLines(
  lines: readonly LogLine[],
  soughts: readonly Sought[] = allSought(),
  which: 'first' | 'any' = 'first',
): LogVerdict {
  const reader = new CrashReader();
  const warnings = new Map<number, LogEvidence>();
  let kernel: string | null = null;
  let shutDown = false;
  for (const line of lines) {
    reader.push(line);
    kernel ??= BANNER.exec(line.text)?.[1] ?? null;
    if (SHUTDOWN_BEGINS.test(line.text)) shutDown = true;
    const wanted = shutDown && WANTED.test(line.text);
    if (SHUTDOWN_ENDS.test(line.text)) shutDown = false;
    if (!wanted && isComplaint(line.text, line.level))
      warnings.set(line.number, { line: line.number, text: line.text.trim() });
  }
  for (const report of reader.reports)
    if (report.kind === 'warning') warnings.set(report.line, { line: report.line, text: report.title });
  // In a log from anywhere, which may hold several boots, the sought one decides. In a trial's it is the first: what follows is its consequence.
  const crashes = reader.reports.filter((report) => report.kind !== 'warning');
  const isSought = (report: CrashReport): boolean =>
    judge(report, signatureOf(report), soughts).outcome === 'reproduced';
  const crash = (which === 'any' ? crashes.find(isSought) : undefined) ?? crashes[0];
  const all = crashes.map((report): LogCrash => {
    const { outcome, bug, corrupted } = judge(report, signatureOf(report), soughts);
    const { line, lastLine, title } = report;
    return {
      ...{ line, lastLine, title, bug, corrupted },
      outcome: outcome === 'reproduced' ? outcome : 'other-crash',
    };
  });
  // What comes after a crash, a crash kernel's boot included, is its consequence.
  const found = [...warnings.values()]
    .filter((entry) => !crash || entry.line < crash.line)
    .sort((a, b) => a.line - b.line);
  if (!crash)
    return {
      outcome: 'no-crash',
      reason: 'no crash report in the log',
      signature: null,
      bug: null,
      corrupted: false,
      kernel,
      crashes: all,
      evidence: [],
      warnings: found,
    };
  const signature = signatureOf(crash);
  const judged = judge(crash, signature, soughts);
  return {
    ...judged,
    signature,
    kernel: crash.release ?? kernel,
    crashes: all,
    evidence: evidenceOf(crash, lines, soughts),
    warnings: found,
  };
}

function judge(
  crash: CrashReport,
  signature: Signature | null,
  soughts: readonly Sought[],
): Pick<LogVerdict, 'outcome' | 'reason' | 'bug' | 'corrupted'> {
  const other = { outcome: 'other-crash', bug: null } as const;
  if (crash.kind !== 'usercopy')
    return {
      ...other,
      reason: crash.title,
      corrupted: crash.interleaved && crash.stack.length === 0,
    };
  const damage = damageOf(crash, signature, soughts);
  if (damage) return { ...other, reason: `the crash report is damaged: ${damage}`, corrupted: true };
  if (!signature) return { ...other, reason: crash.title, corrupted: true };
  const { bug, why } = matchSought(signature, soughts);
  if (bug === null) return { ...other, reason: `a usercopy crash, but ${why}`, corrupted: false };
  const queue = signature.workqueue === undefined ? '' : ` (${signature.workqueue})`;
  return {
    outcome: 'reproduced',
    bug: bug.id,
    reason: `${signature.comm}${queue} read ${signature.length} bytes from ${signature.object} in ${bug.readIn}`,
    corrupted: false,
  };
}

/** What makes a usercopy report unreadable, or null. A stack that already shows where the copy is made need not be complete. */
function damageOf(
  crash: CrashReport,
  signature: Signature | null,
  soughts: readonly Sought[],
): string | null {
  if (!crash.usercopy) return 'its usercopy line is cut';
  if (!crash.bug) return 'its BUG line is missing';
  if (!signature) return 'its CPU/PID/Comm line is missing';
  if (crash.interleaved) return 'lines of another report are mixed into it';
  if (!crash.stackComplete && !soughts.some(({ bug }) => crash.stack.includes(bug.readIn)))
    return 'its call trace is cut';
  return null;
}

function evidenceOf(
  crash: CrashReport,
  lines: readonly LogLine[],
  soughts: readonly Sought[],
): LogEvidence[] {
  const wanted = new Set([crash.line, crash.lastLine]);
  for (const line of lines)
    if (
      line.number >= crash.line &&
      line.number <= crash.lastLine &&
      (/kernel BUG at|Comm: |^Workqueue: /.test(line.text) ||
        soughts.some(({ bug }) => line.text.includes(bug.readIn)))
    )
      wanted.add(line.number);
  return [...wanted]
    .sort((a, b) => a - b)
    .map((number) => ({
      line: number,
      text: lines.find((line) => line.number === number)?.text.trim() ?? '',
    }));
}
