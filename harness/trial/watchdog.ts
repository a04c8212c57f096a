import type { TrialEnd } from '../outcome/decide.js';

/** A report that does not end (the guest died while printing it) is taken as it is after so many seconds without a byte. */
export const CRASH_QUIET_SECONDS = 5;

/**
 * Ends a trial on evidence of a hang, never on total time: `silenceSeconds` without a byte from the guest (it sends a heartbeat every two
 * seconds), or `stallSeconds` of heartbeats without a new phase or cycle.
 */
export class Watchdog {
  /** A person is in charge of the guest's pace: only silence counts. */
  attended = false;
  readonly #limits: { silenceSeconds: number; stallSeconds: number };
  readonly #end: (end: TrialEnd) => void;
  #timer: NodeJS.Timeout | undefined;
  #lastSign = performance.now();
  #lastConsole = performance.now();
  #lastProgress = performance.now();
  #crashQuietSeconds: number | undefined;

  constructor(limits: { silenceSeconds: number; stallSeconds: number }, end: (end: TrialEnd) => void) {
    this.#limits = limits;
    this.#end = end;
  }

  start(): void {
    this.sign('console');
    this.progress();
    this.#timer = setInterval(() => this.#check(), 250);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** The guest sent something. */
  sign(from: 'console' | 'guest'): void {
    this.#lastSign = performance.now();
    if (from === 'console') this.#lastConsole = this.#lastSign;
  }

  /** Seconds since the last byte on the console. */
  consoleQuietSeconds(): number {
    return (performance.now() - this.#lastConsole) / 1000;
  }

  /** The guest came further. */
  progress(): void {
    this.#lastProgress = performance.now();
  }

  /** A crash report has begun: after `quietSeconds` without a new byte on the console, no more of it will come. */
  crashed(quietSeconds: number): void {
    this.#crashQuietSeconds = quietSeconds;
  }

  #check(): void {
    const seconds = (since: number): number => (performance.now() - since) / 1000;
    const { silenceSeconds, stallSeconds } = this.#limits;
    if (this.#crashQuietSeconds !== undefined) {
      if (seconds(this.#lastConsole) >= this.#crashQuietSeconds) this.#end({ why: 'crashed' });
    } else if (seconds(this.#lastSign) >= silenceSeconds)
      this.#end({ why: 'silent', seconds: silenceSeconds });
    else if (!this.attended && seconds(this.#lastProgress) >= stallSeconds)
      this.#end({ why: 'stalled', seconds: stallSeconds });
  }
}
