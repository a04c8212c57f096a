import { type LogLine, parseLine } from '../log/log-line.js';

/** How far a trial came. */
export const phases = ['boot', 'modules', 'target', 'login', 'mount', 'workload', 'done'] as const;
export type Phase = (typeof phases)[number];

/** Proof of work: what the workload did to the LUN, in all and in each cycle. */
export interface WorkDone {
  cycles: number;
  bytesWritten: number;
  /** What the bug counts, by its keys: completed without error. */
  counts: Record<string, number>;
  /** The same, of each cycle. */
  perCycle: Record<string, number>[];
}

/**
 * What the guest's scripts said on the serial console, line by line: `loopanic:<token>:<number>: phase mount` and the like (see
 * vm-images/guest/lib.sh). The token is this trial's own, so nothing else that is printed can pass for a marker. Numbers, phases and
 * cycles must come one after the other: what does not is a fault, and a trial with a fault shows nothing.
 */
export class GuestMarkers {
  phase: Phase = 'boot';
  /** Set when the workload ended by itself and the guest has said all that it had to say. */
  finished = false;
  /** Set when a step failed: the step and its last words. */
  failure: string | undefined;
  /** The guest waits for a person to start the workload. */
  holding = false;
  /** The guest serves its target to another one. */
  serving = false;
  /** What the crash kernel said last: `up`, `writing`, `done`, `failed WHY`. */
  capture: string | undefined;
  /** Null until the workload begins. */
  work: WorkDone | null = null;
  /** Records of the kernel's log that the guest says it sent since its first marker; null if it sent none. */
  kernelLog: { records: number; last: number } | null = null;
  /** Line of the first marker: the guest's own scripts run from there on. */
  firstLine = 0;
  /** Line where the modules are about to be loaded: what the kernel complained about before is its boot's; 0 until then. */
  moduleLine = 0;
  /** What is wrong with the sequence of markers, in the order of the console. */
  readonly faults: string[] = [];
  #boots = 0;
  #number = 0;
  #done = false;
  readonly #begun = new Set<Phase>();
  readonly token: string;
  readonly #prefix: string;
  readonly #mostCycles: number | null;
  readonly #said = new Set<string>();

  /** `mostCycles`: after which its workload ends; null: unknown. */
  constructor(token: string, mostCycles: number | null = null) {
    this.token = token;
    this.#mostCycles = mostCycles;
    this.#prefix = `loopanic:${token}:`;
  }

  /** The workload said what it did. */
  get done(): boolean {
    return this.#done;
  }

  /** Phases that a guest must come through before its workload and that this one never named. */
  missing(needed: readonly Phase[]): Phase[] {
    return needed.filter((phase) => !this.#begun.has(phase));
  }

  /** Takes one console line; returns true if the guest came further by it. */
  push(line: LogLine): boolean {
    const { text } = line;
    if (text.startsWith('Linux version ')) this.#boots++;
    // The second kernel on a console is the crash kernel.
    else if (this.#boots > 1 && text.startsWith('Kernel panic - not syncing'))
      this.capture = `failed ${text.trim()}`;
    const at = text.indexOf(this.#prefix);
    if (at < 0) return false;
    const marker = /^(\d*):? ?(\S+) ?(.*)$/.exec(text.slice(at + this.#prefix.length).trimEnd());
    const [, number = '', verb = '', said = ''] = marker ?? [];
    // The crash kernel has no count of its own.
    if (verb === 'capture' && number === '' && at === 0) {
      this.capture = said;
      return true;
    }
    this.firstLine ||= line.number;
    const faults = this.faults.length;
    if (at > 0) this.#fault(line, 'a marker stands behind other text');
    if (Number(number) !== this.#number + 1)
      this.#fault(line, `marker ${number || 'without a number'} follows marker ${this.#number}`);
    this.#number = Number(number);
    return this.#take(line, verb, said) && this.faults.length === faults;
  }

  #fault(line: LogLine, what: string): void {
    this.faults.push(`line ${line.number}: ${what}`);
  }

  /** False if it is a workload's own note, which says nothing of how far it is. */
  #take(line: LogLine, verb: string, said: string): boolean {
    switch (verb) {
      // Headway once, or once in each cycle.
      case 'up':
      case 'shutdown':
      case 'unmounted': {
        const isFirst = !this.#said.has(verb);
        this.#said.add(verb);
        return isFirst;
      }
      case 'phase':
        this.#enter(line, said);
        break;
      case 'serving':
        this.serving = true;
        break;
      case 'holding':
        this.holding = true;
        break;
      case 'failed':
        this.failure ??= said;
        break;
      case 'cycle':
        this.#cycle(line, said);
        break;
      case 'done':
        this.#end(line, said);
        break;
      case 'ended':
        if (!this.#done) this.failure ??= 'workload: it ended without saying what it did';
        this.finished = this.#done;
        this.kernelLog = { records: value(said, 'records'), last: value(said, 'last') };
        break;
      default:
        return false;
    }
    return true;
  }

  #enter(line: LogLine, said: string): void {
    const phase = phases.find((name) => name === said);
    if (!phase || phases.indexOf(phase) <= phases.indexOf(this.phase)) {
      this.#fault(line, `phase ${said} follows phase ${this.phase}`);
      return;
    }
    this.phase = phase;
    this.#begun.add(phase);
    this.holding = false;
    if (phase === 'modules') this.moduleLine = line.number;
    if (phase === 'workload') this.work = { cycles: 0, bytesWritten: 0, counts: {}, perCycle: [] };
  }

  /** `1 merged=128 reads=256 bytes=4096`: numbers count up from the workload's beginning. */
  #cycle(line: LogLine, said: string): void {
    const { work } = this;
    const cycle = Number.parseInt(said, 10);
    if (!work || this.#done || cycle !== work.cycles + 1 || cycle > (this.#mostCycles ?? cycle)) {
      this.#fault(line, `cycle ${said} follows ${work ? `cycle ${work.cycles}` : 'no workload'}`);
      return;
    }
    const now = counts(said);
    const before = work.counts;
    if (
      !now ||
      now.bytes < work.bytesWritten ||
      Object.keys(before).some((key) => !((now.counts[key] ?? -1) >= (before[key] ?? 0)))
    ) {
      this.#fault(line, `cycle ${said} takes back what was counted before`);
      return;
    }
    work.perCycle.push(
      Object.fromEntries(Object.entries(now.counts).map(([key, count]) => [key, count - (before[key] ?? 0)])),
    );
    Object.assign(work, { cycles: cycle, counts: now.counts, bytesWritten: now.bytes });
    for (const verb of ['shutdown', 'unmounted']) this.#said.delete(verb);
  }

  /** Says once more what the last cycle said. */
  #end(line: LogLine, said: string): void {
    const { work } = this;
    const now = counts(said);
    if (
      this.#done ||
      !work ||
      !now ||
      value(said, 'cycles') !== work.cycles ||
      now.bytes !== work.bytesWritten ||
      JSON.stringify(now.counts) !== JSON.stringify(work.counts)
    )
      this.#fault(line, `done ${said} is not what the cycles say`);
    this.phase = 'done';
    this.#done = true;
  }
}

/** Whole number behind `key=`, no larger than what is exact; NaN if there is none. */
function value(said: string, key: string): number {
  const digits = new RegExp(`(?:^| )${key}=(\\d{1,12})(?: |$)`).exec(said)?.[1];
  return digits === undefined ? Number.NaN : Number(digits);
}

/** `merged=128 reads=256 bytes=4096`, whatever else stands there; null without bytes, or if a number is too large to be exact. */
function counts(said: string): { counts: Record<string, number>; bytes: number } | null {
  const found: Record<string, number> = {};
  for (const [, key = '', digits = ''] of said.matchAll(/(?:^| )([a-z]+)=(\S*)/g)) {
    if (!/^\d{1,12}$/.test(digits)) return null;
    if (key !== 'cycles') found[key] = Number(digits);
  }
  const { bytes, ...rest } = found;
  return bytes === undefined ? null : { counts: rest, bytes };
}

/** A console line longer than this is cut: no kernel or script writes one, and memory has an end. */
const LONGEST_LINE = 64 * 1024;

/** Splits a byte stream into lines, as they become complete. */
export class LineSplitter {
  #parts: string[] = [];
  #length = 0;
  #count = 0;
  readonly #onLine: (line: LogLine) => void;

  constructor(onLine: (line: LogLine) => void) {
    this.#onLine = onLine;
  }

  /** Lines that have ended. */
  get count(): number {
    return this.#count;
  }

  push(chunk: Buffer): void {
    const lines = chunk.toString('latin1').split('\n');
    const last = lines.pop() ?? '';
    for (const line of lines) {
      this.#add(line);
      this.#end();
    }
    this.#add(last);
  }

  /** A last line without its newline is a line too: a log may stop in the middle of one. */
  flush(): void {
    if (this.#length > 0) this.#end();
  }

  #add(text: string): void {
    const room = LONGEST_LINE - this.#length;
    if (room <= 0) return;
    this.#parts.push(text.slice(0, room));
    this.#length += Math.min(text.length, room);
  }

  #end(): void {
    const raw = this.#parts.join('');
    this.#parts = [];
    this.#length = 0;
    for (const line of parseLine(raw, ++this.#count)) this.#onLine(line);
  }
}
