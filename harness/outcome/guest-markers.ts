import { type LogLine, parseLine } from './log-line.js';

/** How far a trial came. */
export const phases = ['boot', 'modules', 'target', 'login', 'mount', 'workload', 'done'] as const;
export type Phase = (typeof phases)[number];

/** Proof of work: what the workload did to the LUN. */
export interface WorkDone {
  cycles: number;
  /** Merged two-sector write requests issued to the LUN. */
  mergedTwoSectorWrites: number;
  bytesWritten: number;
}

/**
 * What the guest's scripts said on the serial console, line by line: `loopanic:<token>: phase mount` and the like (see
 * vm-images/guest/lib.sh). The token is this trial's own, so nothing else that is printed can pass for a marker.
 */
export class GuestMarkers {
  phase: Phase = 'boot';
  /** Set when the workload ended by itself. */
  finished = false;
  /** Set when a step failed: the step and its last words. */
  failure: string | undefined;
  /** The guest waits for a person to start the workload. */
  holding = false;
  /** What the crash kernel said last: `up`, `writing`, `done`, `failed WHY`. */
  capture: string | undefined;
  /** Null until the workload begins. */
  work: WorkDone | null = null;
  /** Line of the first marker: the kernel's own boot messages end there. */
  firstLine = 0;
  #boots = 0;
  readonly #prefix: string;

  constructor(token: string) {
    this.#prefix = `loopanic:${token}: `;
  }

  /** Takes one console line; returns true if it was a marker. */
  push(line: LogLine): boolean {
    const { text } = line;
    if (text.startsWith('Linux version ')) this.#boots++;
    // The second kernel on a console is the crash kernel.
    else if (this.#boots > 1 && text.startsWith('Kernel panic - not syncing'))
      this.capture = `failed ${text.trim()}`;
    if (!text.startsWith(this.#prefix)) return false;
    this.firstLine ||= line.number;
    const [verb = '', ...rest] = text.slice(this.#prefix.length).trim().split(' ');
    const said = rest.join(' ');
    if (verb === 'phase') {
      const phase = phases.find((name) => name === said);
      if (phase) this.phase = phase;
      this.holding = false;
      if (phase === 'workload') this.work = { cycles: 0, mergedTwoSectorWrites: 0, bytesWritten: 0 };
    } else if (verb === 'holding') this.holding = true;
    else if (verb === 'failed') this.failure = said;
    else if (verb === 'ended' && !this.finished)
      this.failure = 'workload: it ended without saying what it did';
    else if (verb === 'capture') this.capture = said;
    else if (verb === 'cycle') this.work = work(`cycles=${said}`);
    else if (verb === 'done') {
      this.work = work(said);
      this.phase = 'done';
      this.finished = true;
    }
    return true;
  }
}

function work(said: string): WorkDone {
  const value = (key: string): number => Number(new RegExp(`\\b${key}=(\\d+)`).exec(said)?.[1] ?? 0);
  return { cycles: value('cycles'), mergedTwoSectorWrites: value('merged'), bytesWritten: value('bytes') };
}

/** Splits a byte stream into lines, as they become complete. */
export class LineSplitter {
  #rest = '';
  #count = 0;
  readonly #onLine: (line: LogLine) => void;

  constructor(onLine: (line: LogLine) => void) {
    this.#onLine = onLine;
  }

  push(chunk: Buffer): void {
    const lines = (this.#rest + chunk.toString('latin1')).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) this.#onLine(parseLine(line, ++this.#count));
  }
}

/** Line of the first marker in a whole log; 0 if there is none. */
export function firstMarker(log: string, token: string): number {
  const markers = new GuestMarkers(token);
  new LineSplitter((line) => void markers.push(line)).push(Buffer.from(`${log}\n`, 'latin1'));
  return markers.firstLine;
}
