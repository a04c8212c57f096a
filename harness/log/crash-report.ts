import type { LogLine } from './log-line.js';

/** What hardened usercopy printed. */
export interface UsercopyMessage {
  direction: 'exposure' | 'overwrite';
  /** Kernel address, printed by kernels before 4.16 only. */
  address?: string;
  /** Slab cache, or what else the kernel named ("<process stack>", "unknown"). */
  object: string;
  /** Bytes that the copy asked for. */
  length: number;
  /** Bytes into the object, printed by 4.16 and later. */
  offset?: number;
}

export type CrashKind = 'usercopy' | 'bug' | 'oops' | 'panic' | 'warning';

/** One report in a kernel log: from its first line to its end trace. */
export interface CrashReport {
  kind: CrashKind;
  /** The line that names it. */
  title: string;
  /** Line number of `title`. */
  line: number;
  /** Line number of the last line that was read as part of it. */
  lastLine: number;
  usercopy?: UsercopyMessage;
  bug?: { file: string; line: number };
  cpu?: number;
  pid?: number;
  comm?: string;
  /** Of a task of a work queue: the queue, its function and the function's module. */
  workqueue?: string;
  tainted?: string;
  release?: string;
  /** Functions of the call trace, innermost first, without the `? ` guesses. */
  stack: string[];
  /** The call trace was read to its end. */
  stackComplete: boolean;
  /** Another report, or another CPU's lines, began before this one's call trace was complete. */
  interleaved: boolean;
  /** Its lines, the first `MOST_LINES` of them, and the last. */
  lines: LogLine[];
}

/** Of a longer report's lines only the first are kept. */
const MOST_LINES = 400;

// mm/usercopy.c: report_usercopy() before 4.16, usercopy_abort() since; SLUB and SLAB name the cache in quotes.
const USERCOPY_OLD =
  /usercopy: kernel memory (exposure|overwrite) attempt detected (?:from|to) (\S+) \((.+?)\) \((\d{1,12}) bytes\)/;
const USERCOPY_NEW =
  /usercopy: Kernel memory (exposure|overwrite) attempt detected (?:from|to) (.+?)(?: '([^']+)')?(?: \(.*?\))? ?\(offset (\d{1,12}), size (\d{1,12})\)!/;
const USERCOPY_ANY = /usercopy: kernel memory (exposure|overwrite)/i;
// arm64 has a space before the exclamation mark.
const BUG_AT = /kernel BUG at (\S{1,200}?):(\d{1,9}) ?!/;
const BUG_CUT = /^kernel BUG at/;
const WARNING = /^WARNING: (?:CPU: \d+ PID: \d+ )?at /;
const WARNING_NEW = /^WARNING: .+ at \S+, CPU#\d+/;
// Of each architecture: arch/x86/kernel/traps.c, arch/arm/mm/fault.c and kernel/traps.c, arch/{arm64,riscv,s390,mips,powerpc}/….
const OOPS =
  /^(?:BUG: unable to handle|BUG: Unable to handle|BUG: kernel NULL pointer|(?:segment-related )?general protection fault|(?:double fault|divide error|stack segment|int3|alignment check|segment not present|invalid TSS|coprocessor segment overrun): |Oops ?[:[]|PANIC: double fault|traps: PANIC|(?:CPU \d+ )?Unable to handle kernel|Unhandled fault: |Internal error: )/;
const PANIC = /^Kernel panic - not syncing: (.*)/;
const HEADER =
  /^(?:WARNING: )?CPU: (\d{1,9}) (?:UID: \d+ )?PID: (\d{1,9}) Comm: (.{1,15}?) (?:Kdump: loaded )?(Not tainted|Tainted: \S(?:.*?\S)?) +(\d{1,4}\.\d{1,4}\S{0,100}) #/;
/** print_worker_info() in kernel/workqueue.c. */
const WORKQUEUE = /^Workqueue: (\S+ \S+(?: \[\S+\])?)/;
const TRACE_ENTRY =
  /^\s*(?:<\/?[A-Z#0-9]+>\s+)*(?:\[<[0-9a-fx]+>\] ?|\[[0-9a-f]{16}\] \[[0-9a-f]{16}\] )?(\? )?([A-Za-z_][\w.$]*)\+0x[0-9a-f]+\/0x[0-9a-f]+/;
/** As scripts/decode_stacktrace.sh writes it. */
const TRACE_DECODED = /^\s*(\? )?([A-Za-z_][\w.$]*) \([\w./-]+:\d+/;
/** In the middle of a report whose beginning is lost. */
const HEADLESS =
  /^RIP: 00\d\d:(?:\[<[0-9a-f]+>\] +\[<[0-9a-f]+>\] +)?(?:usercopy_abort|__check_object_size)\+/;
/** A program's own line, or a record of the audit system: they may quote a kernel. */
const QUOTED = /[\w./-]{1,64}\[\d{1,10}\]: |\baudit\(|\btype=[A-Z_0-9]+ msg=/;
const TRACE_END =
  /^\s*(<\/TASK>|RIP: 00[23]3|Code:|Modules linked in:|---\[ end trace|Kernel panic|RIP {1,2}\[<|DWARF2)/;
const END =
  /^---\[ end trace|^Kernel panic - not syncing|^RIP {1,2}\[<[0-9a-f]+>\]|^Rebooting in|^Kernel Offset:/;

/** A kernel's first line: this one, its crash kernel or, behind it in the same file, the next boot. */
const BANNER = /^Linux version /;

const LONGEST = 1024;

/** Reads the line that hardened usercopy prints, old wording or new; undefined if it is cut. */
export function usercopyMessage(text: string): UsercopyMessage | undefined {
  const old = USERCOPY_OLD.exec(text);
  if (old) {
    const message: UsercopyMessage = {
      direction: old[1] as UsercopyMessage['direction'],
      object: old[3] ?? '',
      length: Number(old[4]),
    };
    if (old[2] && /[0-9a-f]{8,}/.test(old[2])) message.address = old[2];
    return message;
  }
  const now = USERCOPY_NEW.exec(text);
  if (!now) return undefined;
  return {
    direction: now[1] as UsercopyMessage['direction'],
    object: now[3] ?? now[2] ?? '',
    offset: Number(now[4]),
    length: Number(now[5]),
  };
}

function newReport(kind: CrashKind, line: LogLine): CrashReport {
  return {
    kind,
    title: line.text.trim(),
    line: line.number,
    lastLine: line.number,
    stack: [],
    stackComplete: false,
    interleaved: false,
    lines: [line],
  };
}

/**
 * Reads every report out of a kernel log, in order, from a stream of lines. Feed lines with `push`; `reports` may be read at
 * any time. The rules are a table of line patterns, because reports differ between kernels in order and wording, and because
 * lines of several CPUs may be interleaved.
 */
export class CrashReader {
  readonly reports: CrashReport[] = [];
  #open: CrashReport | undefined;
  #inTrace = false;
  #crash: CrashReport | undefined;
  /** The kernel that is running now has crashed. */
  #crashed = false;

  /** True once a crash (not a mere warning) was reported and its report has ended. */
  get crashComplete(): boolean {
    return this.crash !== undefined && this.#open === undefined;
  }

  /** True once the call trace of the first crash was read: enough to tell what it is. */
  get crashTold(): boolean {
    return this.crash?.stackComplete === true;
  }

  /** The first report that is a crash. What follows a crash is its consequence. */
  get crash(): CrashReport | undefined {
    return this.#crash;
  }

  /** Hands out the reports that will not change any more, and forgets them: a log may be longer than memory. */
  takeClosed(): CrashReport[] {
    const isClosed = (report: CrashReport): boolean => report !== this.#open;
    const closed = this.reports.filter(isClosed);
    this.reports.splice(0, this.reports.length, ...this.reports.filter((report) => !isClosed(report)));
    return closed;
  }

  push(whole: LogLine): void {
    // No line of a report is longer (LOG_LINE_MAX of kernel/printk), and what is matched here must not take long.
    const line = whole.text.length > LONGEST ? { ...whole, text: whole.text.slice(0, LONGEST) } : whole;
    const { text } = line;
    this.#start(line);
    if (BANNER.test(text)) {
      // A crash kernel's, in the middle of a trace: the trace is cut, not complete.
      this.#crashed = false;
      this.#close();
    }
    const report = this.#open;
    if (!report) return;
    report.lastLine = line.number;
    if (report.lines.at(-1) !== line) {
      if (report.lines.length > MOST_LINES) report.lines.pop();
      report.lines.push(line);
    }
    if (line.broken) report.interleaved ||= !report.stackComplete;
    this.#header(report, text);
    this.#trace(report, text);
    if (END.test(text) && report.line !== line.number) {
      report.stackComplete ||= this.#inTrace || report.stack.length > 0;
      this.#close();
    }
  }

  #start(line: LogLine): void {
    const { text } = line;
    // What a program says to the kernel's log is not the kernel's.
    const isQuoted = (pattern: RegExp): boolean => {
      const at = pattern.exec(text)?.index ?? 0;
      return at > 0 && QUOTED.test(text.slice(0, at));
    };
    if (USERCOPY_ANY.test(text)) {
      if (isQuoted(USERCOPY_ANY)) return;
      const message = usercopyMessage(text);
      const report = this.#begin('usercopy', line);
      if (message) report.usercopy = message;
      return;
    }
    const bug = isQuoted(BUG_AT) ? null : BUG_AT.exec(text);
    if (bug || BUG_CUT.test(text)) {
      const belongs = this.#open?.kind === 'usercopy' && !this.#open.bug && this.#open.stack.length === 0;
      const report = belongs && this.#open ? this.#open : this.#begin('bug', line);
      if (bug) report.bug = { file: bug[1] ?? '', line: Number(bug[2]) };
      return;
    }
    if (HEADLESS.test(text) && !this.#crashOpen() && !this.#crashed) {
      this.#begin('usercopy', line);
      return;
    }
    if (WARNING.test(text) || WARNING_NEW.test(text)) this.#begin('warning', line);
    else if (OOPS.test(text) && !this.#crashOpen()) this.#begin('oops', line);
    else if (PANIC.test(text) && !this.#crashOpen() && !this.#crashed) this.#begin('panic', line);
  }

  #crashOpen(): boolean {
    return this.#open !== undefined && this.#open.kind !== 'warning';
  }

  #begin(kind: CrashKind, line: LogLine): CrashReport {
    const interrupted = this.#open !== undefined && !this.#open.stackComplete;
    if (this.#open && interrupted) this.#open.interleaved = true;
    const report = newReport(kind, line);
    report.interleaved = interrupted || line.broken;
    this.reports.push(report);
    if (kind !== 'warning') {
      this.#crash ??= report;
      this.#crashed = true;
    }
    this.#inTrace = false;
    // A warning that breaks into a crash must not take the crash's remaining lines: the crash stays open, marked.
    if (kind === 'warning' && this.#crashOpen()) return report;
    this.#open = report;
    return report;
  }

  #header(report: CrashReport, text: string): void {
    const header = HEADER.exec(text);
    if (header) {
      const [, cpu, pid, comm, tainted, release] = header;
      if (report.pid !== undefined && report.pid !== Number(pid)) {
        report.interleaved ||= !report.stackComplete;
        return;
      }
      report.cpu = Number(cpu);
      report.pid = Number(pid);
      report.comm = comm ?? '';
      report.tainted =
        tainted === 'Not tainted' ? '' : (tainted ?? '').replace(/^Tainted: /, '').replace(/\s+/g, ' ');
      report.release = release ?? '';
    }
    const queue = WORKQUEUE.exec(text)?.[1];
    if (queue !== undefined && !report.stackComplete) report.workqueue ??= queue;
  }

  #trace(report: CrashReport, text: string): void {
    if (/^Call [Tt]race:/.test(text)) {
      if (this.#inTrace && report.stack.length > 0) report.interleaved = true;
      this.#inTrace = !report.stackComplete;
      return;
    }
    if (!this.#inTrace) return;
    if (TRACE_END.test(text)) {
      this.#inTrace = false;
      report.stackComplete = true;
      return;
    }
    const entry = TRACE_ENTRY.exec(text) ?? TRACE_DECODED.exec(text);
    if (entry?.[2] && !entry[1]) report.stack.push(entry[2]);
  }

  #close(): void {
    this.#open = undefined;
    this.#inTrace = false;
  }
}
