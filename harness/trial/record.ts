import { join } from 'node:path';
import { firstLine, LoopanicError } from '../base/errors.js';
import { writeJson } from '../base/files.js';
import type { TrialEnd } from '../outcome/decide.js';
import { outcomeSchema, type TrialOutcome } from '../outcome/outcome-schema.js';
import { concludeTrial, concludeUnreadable, type ReadingPlan, TRIAL_FILES } from './conclude.js';

/**
 * What becomes known of a trial, and is saved as outcome.json beside its logs in `dir`: by whoever has these logs, the host that ran it or
 * another one. A crash is judged and saved before its dump is taken: how that goes cannot change the outcome.
 */
export class TrialRecord {
  readonly #plan: ReadingPlan;
  readonly #dir: string;
  #known: TrialOutcome | undefined;

  constructor(plan: ReadingPlan, dir: string) {
    this.#plan = plan;
    this.#dir = dir;
  }

  /** Its guest has crashed; a dump may follow. `timings` in seconds. */
  async crashed(end: TrialEnd, timings: Record<string, number>): Promise<void> {
    this.#known = await this.#save(await this.#concluded(end, timings));
  }

  /** It is over. Throws InfraError if its logs cannot be read. */
  async ended(end: TrialEnd, timings: Record<string, number>): Promise<TrialOutcome> {
    const last = await this.#concluded(end, timings);
    if (!this.#known) return this.#save(last);
    // What the panicked kernel printed of its trace came while the dump was taken.
    const told = Object.keys(timings).length > 0 ? timings : this.#known.timings;
    return this.#save({ ...this.#known, gate: last.gate, gateWhy: last.gateWhy, timings: told });
  }

  /** By the trial's logs, as it can be read again; whatever a guest has put in them, other trials go on. */
  async #concluded(end: TrialEnd, timings: Record<string, number>): Promise<TrialOutcome> {
    try {
      return outcomeSchema.parse(await concludeTrial(this.#plan, this.#dir, end, timings));
    } catch (error) {
      if (error instanceof LoopanicError) throw error;
      const why = firstLine(error).slice(0, 300);
      return concludeUnreadable(this.#plan, this.#dir, end, timings, why);
    }
  }

  async #save(outcome: TrialOutcome): Promise<TrialOutcome> {
    await writeJson(join(this.#dir, TRIAL_FILES.outcome), outcome);
    return outcome;
  }
}
