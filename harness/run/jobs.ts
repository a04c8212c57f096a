import { availableParallelism } from 'node:os';
import { UsageError } from '../base/errors.js';
import type { LoadedScenario } from '../scenario/scenario-schema.js';

/** How many at a time: a number, or as many as this host can hold. */
export type Jobs = number | 'auto';

/** What a scenario's guests take of their host: memory in MiB. */
export interface Need {
  cpus: number;
  memoryMiB: number;
}

/** A guest as most scenarios have it. */
export const USUAL_NEED: Need = { cpus: 1, memoryMiB: 1024 };

/** Memory that a guest takes, beside its own: QEMU's, and its initramfs on its way. */
const MEMORY_SHARE = 1.25;

/** Reads `--jobs`. Throws UsageError. */
export function parseJobs(text: string): Jobs {
  if (text === 'auto') return text;
  const jobs = Number(text);
  if (/^\d+$/.test(text) && jobs >= 1) return jobs;
  throw new UsageError('bad-usage', '--jobs: must be a whole number of at least 1, or auto');
}

export function needOf({ scenario }: LoadedScenario): Need {
  const { cpus, memoryMiB } = scenario.vm;
  return scenario.where === 'peer' ? { cpus: cpus + 1, memoryMiB: 2 * memoryMiB } : { cpus, memoryMiB };
}

/** Trials of such guests that this host, or the container that this is, has room for: 1 at least. */
export function jobsThatFit({ cpus, memoryMiB }: Need): number {
  const free = process.availableMemory() / 2 ** 20;
  const fit = Math.min(availableParallelism() / cpus, free / (memoryMiB * MEMORY_SHARE));
  return Math.max(1, Math.floor(fit));
}
