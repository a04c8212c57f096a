import { availableParallelism } from 'node:os';
import type { TrialOutcome } from '../outcome/outcome-schema.js';
import { type CellParts, filesOf, type TrialPlan } from '../trial/plan.js';
import { type Attendance, runTrial, type TrialCallbacks } from '../trial/run-trial.js';
import type { AccelChoice } from '../vm/accel.js';

/** Where trials are run: on this host, or by the workers of a queue. */
export interface Runner {
  /** Cells that are worked on at a time. */
  slots: number;
  /** What guests run on, where that is not this host's matter. */
  accel?: AccelChoice;
  /**
   * Waits until there is room for one more trial of a cell. Null if the run is stopped meanwhile: then nothing was begun. Throws InfraError if
   * there will be none.
   */
  place(wanted: WantedTrial, signal: AbortSignal): Promise<Place | null>;
  end(): Promise<void>;
}

export interface WantedTrial {
  parts: CellParts;
  /** Others wait for what it shows: a positive control, or a cell that has begun. */
  isAwaited: boolean;
}

/** Room for one trial. */
export interface Place {
  host: { name: string; qemu: string };
  /**
   * Runs the trial in `dir`, which exists and is empty, and leaves plan.json, logs and outcome.json there. Never throws for what happens to
   * the guest.
   */
  run(plan: TrialPlan, dir: string, signal: AbortSignal, callbacks: TrialCallbacks): Promise<TrialOutcome>;
  /** It is not used after all. */
  release(): void;
  /** Settles when what was dumped is in `dir`, or never will be. */
  dumped(): Promise<void>;
}

/** CPUs of the guests that run here, beside this host's: what a trial's time limits are stretched by. */
export class Crowd {
  #cpus = 0;
  readonly factor = (): number => this.#cpus / availableParallelism();

  /** Counts a trial's guests in while `work` goes on. */
  async with<T>({ scenario }: Pick<TrialPlan, 'scenario'>, work: () => Promise<T>): Promise<T> {
    const cpus = scenario.vm.cpus + (scenario.where === 'peer' ? 1 : 0);
    this.#cpus += cpus;
    return work().finally(() => {
      this.#cpus -= cpus;
    });
  }
}

/** Trials on this host. */
export class LocalRunner implements Runner {
  readonly slots: number;
  readonly #host: Place['host'];
  readonly #attendance: Attendance | undefined;
  readonly #crowd = new Crowd();

  constructor(jobs: number, host: Place['host'], attendance: Attendance | undefined) {
    this.slots = jobs;
    this.#host = host;
    this.#attendance = attendance;
  }

  async place({ parts }: WantedTrial): Promise<Place> {
    const run: Place['run'] = (plan, dir, signal, callbacks) => {
      const told = { ...callbacks, crowding: this.#crowd.factor };
      return this.#crowd.with(plan, () =>
        runTrial(plan, filesOf(parts), dir, signal, told, this.#attendance),
      );
    };
    return { host: this.#host, run, release: () => {}, dumped: () => Promise.resolve() };
  }

  async end(): Promise<void> {}
}
