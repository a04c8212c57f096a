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
  /** How many more there are of them than are listed. */
  leftOut: { warnings: number; crashes: number };
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

/** More warnings and crashes of a log than this are counted only. */
const MOST_WARNINGS = 10_000;
const MOST_CRASHES = 1000;

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
  const classifier = new LogClassifier(soughts, which);
  for (const line of lines) classifier.push(line);
  return classifier.verdict();
}

/** Reads a log line by line, in memory that does not grow with it. */
export class LogClassifier {
  readonly #soughts: readonly Sought[];
  /** In a log from anywhere, which may hold several boots, the sought crash decides. In a trial's it is the first: what follows is its consequence. */
  readonly #which: 'first' | 'any';
  readonly #reader = new CrashReader();
  readonly #warnings = new Map<number, LogEvidence>();
  readonly #crashes: LogCrash[] = [];
  readonly #leftOut = { warnings: 0, crashes: 0 };
  /** How many warnings were left out when a report began. */
  readonly #leftOutBefore = new WeakMap<CrashReport, number>();
  #deciding: { report: CrashReport; isSought: boolean } | undefined;
  #kernel: string | null = null;
  #shutDown = false;

  constructor(soughts: readonly Sought[] = allSought(), which: 'first' | 'any' = 'any') {
    this.#soughts = soughts;
    this.#which = which;
  }

  push(line: LogLine): void {
    const { text, number, level } = line;
    this.#reader.push(line);
    const report = this.#reader.reports.at(-1);
    if (report && !this.#leftOutBefore.has(report)) this.#leftOutBefore.set(report, this.#leftOut.warnings);
    if (this.#reader.reports.length > MOST_CRASHES) this.#settle(this.#reader.takeClosed());
    this.#kernel ??= BANNER.exec(text)?.[1] ?? null;
    if (SHUTDOWN_BEGINS.test(text)) this.#shutDown = true;
    const wanted = this.#shutDown && WANTED.test(text);
    if (SHUTDOWN_ENDS.test(text)) this.#shutDown = false;
    if (!wanted && isComplaint(text, level)) this.#warn({ line: number, text: text.trim() });
  }

  /** What the log shows. The log is at its end then. */
  verdict(): LogVerdict {
    this.#settle(this.#reader.reports);
    const crash = this.#deciding?.report;
    // What comes after a crash, a crash kernel's boot included, is its consequence.
    const warnings = [...this.#warnings.values()]
      .filter((entry) => !crash || entry.line < crash.line)
      .sort((a, b) => a.line - b.line);
    const leftOut = {
      warnings: (crash && this.#leftOutBefore.get(crash)) ?? this.#leftOut.warnings,
      crashes: this.#leftOut.crashes,
    };
    const seen = { crashes: this.#crashes, warnings, leftOut };
    if (!crash)
      return {
        outcome: 'no-crash',
        reason: 'no crash report in the log',
        signature: null,
        bug: null,
        corrupted: false,
        kernel: this.#kernel,
        evidence: [],
        ...seen,
      };
    const signature = signatureOf(crash);
    return {
      ...judge(crash, signature, this.#soughts),
      signature,
      kernel: crash.release ?? this.#kernel,
      evidence: evidenceOf(crash, this.#soughts),
      ...seen,
    };
  }

  #warn(warning: LogEvidence): void {
    if (this.#warnings.size < MOST_WARNINGS || this.#warnings.has(warning.line))
      this.#warnings.set(warning.line, warning);
    else this.#leftOut.warnings++;
  }

  #settle(reports: readonly CrashReport[]): void {
    for (const report of reports) {
      const { line, lastLine, title } = report;
      if (report.kind === 'warning') {
        // It was one by its text already.
        if (this.#warnings.has(line) || this.#warnings.size < MOST_WARNINGS)
          this.#warn({ line, text: title });
        continue;
      }
      const { outcome, bug, corrupted } = judge(report, signatureOf(report), this.#soughts);
      const isSought = outcome === 'reproduced';
      if (!this.#deciding || (this.#which === 'any' && isSought && !this.#deciding.isSought))
        this.#deciding = { report, isSought };
      if (this.#crashes.length >= MOST_CRASHES) this.#leftOut.crashes++;
      else
        this.#crashes.push({
          ...{ line, lastLine, title, bug, corrupted },
          outcome: isSought ? 'reproduced' : 'other-crash',
        });
    }
  }
}

function judge(
  crash: CrashReport,
  signature: Signature | null,
  soughts: readonly Sought[],
): Pick<LogVerdict, 'outcome' | 'reason' | 'bug' | 'corrupted'> {
  const other = { outcome: 'other-crash', bug: null } as const;
  // Its own line stands before this one, always.
  if (crash.kind === 'bug' && crash.bug?.file.endsWith('mm/usercopy.c'))
    return { ...other, reason: 'the crash report is damaged: its usercopy line is missing', corrupted: true };
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

function evidenceOf({ lines }: CrashReport, soughts: readonly Sought[]): LogEvidence[] {
  return lines
    .filter(
      ({ text }, index) =>
        index === 0 ||
        index === lines.length - 1 ||
        /kernel BUG at|Comm: |^Workqueue: /.test(text) ||
        soughts.some(({ bug }) => text.includes(bug.readIn)),
    )
    .map(({ number, text }) => ({ line: number, text: text.trim() }));
}
