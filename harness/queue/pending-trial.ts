import { open, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type * as z from 'zod';
import { sha256OfFile, writeJson } from '../base/files.js';
import type { TrialEnd } from '../outcome/decide.js';
import type { TrialOutcome } from '../outcome/outcome-schema.js';
import { MOST_BYTES, TRIAL_FILES } from '../trial/conclude.js';
import type { TrialPlan } from '../trial/plan.js';
import { TrialRecord } from '../trial/record.js';
import type { TrialCallbacks } from '../trial/run-trial.js';
import {
  DUMPS,
  type endedSchema,
  type endSchema,
  HUNG_UP_SECONDS,
  LOGS,
  LOST_SECONDS,
  type Part,
} from './protocol.js';

/** Of what is not whole yet; a run that is gone on with takes it away. */
const PART = '.part';

type Ended = z.infer<typeof endedSchema>;

/** Its worker says that a file is other than what came here. */
export interface Differs {
  name: string;
  bytes: number;
}

/**
 * A trial that a worker runs, as its coordinator has it: the worker sends what its logs grow by, and why the trial was over; what that makes the
 * trial is found out here, from these logs alone.
 */
export class PendingTrial {
  readonly plan: TrialPlan;
  readonly #dir: string;
  readonly #record: TrialRecord;
  readonly #callbacks: TrialCallbacks;
  readonly outcome: Promise<TrialOutcome>;
  readonly dumped: Promise<void>;
  #settle: (outcome: TrialOutcome | Promise<TrialOutcome>) => void = () => {};
  #settleDumps: () => void = () => {};
  /** One request after the other. */
  #work: Promise<unknown> = Promise.resolve();
  #state: 'runs' | 'ended' | 'closed' = 'runs';
  #dumps = new Map<string, Part>();
  #lines = 0;
  /** Milliseconds, monotonic. */
  lastBeat = performance.now();
  isToStop = false;
  /** It came to an end of its own. */
  onEnd: () => void = () => {};

  constructor(plan: TrialPlan, dir: string, callbacks: TrialCallbacks) {
    this.plan = plan;
    this.#dir = dir;
    this.#record = new TrialRecord(plan, dir);
    this.#callbacks = callbacks;
    this.outcome = new Promise((resolve) => {
      this.#settle = resolve;
    });
    this.dumped = new Promise((resolve) => {
      this.#settleDumps = resolve;
    });
  }

  start(): Promise<void> {
    return writeJson(join(this.#dir, TRIAL_FILES.plan), this.plan);
  }

  /** True until nothing more is taken from its worker. */
  get isOpen(): boolean {
    return this.#state !== 'closed';
  }

  get isRunning(): boolean {
    return this.#state === 'runs';
  }

  /** Its worker holds a line, for as long as its process lives, and the returned function says that it does no more. */
  attend(): () => void {
    this.#lines++;
    this.lastBeat = performance.now();
    return () => {
      this.#lines--;
    };
  }

  /** Seconds of silence after which its worker counts as lost. */
  get patienceSeconds(): number {
    return this.#lines > 0 ? LOST_SECONDS : HUNG_UP_SECONDS;
  }

  beat(status: string): void {
    this.lastBeat = performance.now();
    if (status !== '') this.#callbacks.onStatus?.(status);
  }

  /** Adds to a file at its end. Returns its size then, or as it is if it has another than `offset`; null if no such file is taken now. */
  append(name: string, offset: number, content: Buffer): Promise<{ added: boolean; bytes: number } | null> {
    this.lastBeat = performance.now();
    return this.#inTurn(async () => {
      const most = this.#mostBytes(name);
      if (most === null) return null;
      const file = await open(this.#pathOf(name), 'a', 0o600);
      try {
        const { size } = await file.stat();
        if (size !== offset) return { added: false, bytes: size };
        if (size + content.length > most) return null;
        await file.appendFile(content);
        if (name === TRIAL_FILES.console) this.#callbacks.onConsole?.(content);
        return { added: true, bytes: size + content.length };
      } finally {
        await file.close();
      }
    });
  }

  /** A dump has its name when all of it is there. */
  #pathOf(name: string): string {
    return join(this.#dir, DUMPS.includes(name) ? `${name}${PART}` : name);
  }

  #mostBytes(name: string): number | null {
    if (this.#state === 'runs' && LOGS.includes(name)) return 2 * MOST_BYTES;
    if (this.#state === 'ended') return this.#dumps.get(name)?.bytes ?? null;
    return null;
  }

  crashed({ end, timings }: z.infer<typeof endSchema>): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#state === 'runs') await this.#record.crashed(end, timings);
    });
  }

  /** It is over, if all logs came as they are at its worker; else the first that did not. */
  ended({ end, timings, files }: Ended): Promise<Differs | null> {
    return this.#inTurn(async () => {
      if (this.#state !== 'runs') return null;
      for (const name of LOGS) {
        const path = join(this.#dir, name);
        const bytes = await stat(path).then(
          (info) => info.size,
          () => 0,
        );
        const wanted = files[name] ?? { bytes: 0, sha256: '' };
        if (bytes !== wanted.bytes || (bytes > 0 && (await sha256OfFile(path)) !== wanted.sha256)) {
          // What came is none of it: from the start, then.
          await rm(path, { force: true });
          return { name, bytes: 0 };
        }
      }
      for (const name of DUMPS) {
        const part = files[name];
        if (part && part.bytes <= this.#mostDump()) this.#dumps.set(name, part);
      }
      this.onEnd();
      this.#conclude(this.#checked(end), timings);
      if (this.#dumps.size === 0) this.#close();
      return null;
    });
  }

  /** A LUN that is a disk of QEMU's has a count of what it received. */
  #checked(end: TrialEnd): TrialEnd {
    const isCounted = end.why === 'finished' && typeof end.lunBytesWritten === 'number';
    return end.why !== 'finished' || isCounted || this.plan.parts.lun === null ? end : { why: 'finished' };
  }

  #mostDump(): number {
    return 2 * this.plan.scenario.vm.memoryMiB * 2 ** 20 + MOST_BYTES;
  }

  /** All that was dumped has come, or the first that differs. */
  allDumped(): Promise<Differs | null> {
    return this.#inTurn(async () => {
      if (this.#state !== 'ended') return null;
      for (const [name, part] of this.#dumps) {
        const path = this.#pathOf(name);
        const sha256 = await sha256OfFile(path).catch(() => '');
        if (sha256 === part.sha256) continue;
        await rm(path, { force: true });
        return { name, bytes: 0 };
      }
      for (const name of this.#dumps.keys()) await rename(this.#pathOf(name), join(this.#dir, name));
      this.#close();
      return null;
    });
  }

  /** Nothing more will come. What its guest had said by then decides; half a dump is none. */
  lost(end: TrialEnd, isCertain = false): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#state === 'closed') return;
      if (this.#state === 'ended') for (const name of DUMPS) await rm(this.#pathOf(name), { force: true });
      else this.#conclude(end, {}, isCertain);
      this.#close();
    });
  }

  /** Taken as it is: another process's trial by now. */
  #close(): void {
    this.#state = 'closed';
    this.#settleDumps();
  }

  #conclude(end: TrialEnd, timings: Record<string, number>, isCertain = false): void {
    this.#state = 'ended';
    const concluded = this.#record.ended(end, timings);
    this.#settle(isCertain ? concluded.then((outcome) => this.#setAside(outcome)) : concluded);
  }

  /** Its kind takes workers with it: it is not tried again. */
  async #setAside(outcome: TrialOutcome): Promise<TrialOutcome> {
    if (outcome.outcome !== 'infra-error') return outcome;
    const reason = `${outcome.reason}; so were those that ran it before: it is set aside`;
    const aside = { ...outcome, certain: true, reason };
    await writeJson(join(this.#dir, TRIAL_FILES.outcome), aside);
    return aside;
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#work.then(work);
    this.#work = done.catch(() => {});
    return done;
  }
}
