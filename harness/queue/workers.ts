import type { Redis } from 'ioredis';
import { InfraError, InterruptedError } from '../base/errors.js';
import type { Progress } from '../base/progress.js';
import type { AccelChoice } from '../vm/accel.js';
import type { Accel } from '../vm/qemu-args.js';
import type { ListenAddress } from './coordinator-server.js';
import { type Version, versionText, type WorkerRecord, workerSchema } from './protocol.js';
import { announced, shownUrl } from './redis.js';

export interface QueueOptions {
  /** The Redis that workers look at, too. */
  url: string;
  listen: ListenAddress;
  accel: 'auto' | Accel;
  /** Only workers with this label. */
  label: string | null;
  /** Seconds without any worker, or without Redis, after which the run is given up. */
  patienceSeconds: number;
}

/** From the first worker to the choice of an accelerator: by then each that is there has said so. */
const SETTLE_SECONDS = 5;
const LOOK_MS = 250;

export const labelText = (label: string | null): string => (label === null ? '' : ` with the label ${label}`);

/** What the run's guests run on: KVM if a worker has it. Waits for the first worker. Throws InfraError if none comes. */
export async function accelOf(
  redis: Redis,
  options: QueueOptions,
  version: Version,
  signal: AbortSignal,
  progress: Progress,
): Promise<AccelChoice> {
  const { accel, label, patienceSeconds, url } = options;
  if (accel !== 'auto') return { accel, reason: 'asked for' };
  const told = new Set<string>();
  const tell = (key: string, line: string): void => {
    if (!told.has(key)) progress.line(line);
    told.add(key);
  };
  return progress.step(`queue ${shownUrl(url)}: waits for a worker`, async () => {
    const started = performance.now();
    let since: number | null = null;
    for (;;) {
      if (signal.aborted) throw new InterruptedError();
      const workers = await ableWorkers(redis, options, version, tell);
      if (workers.some((worker) => worker.accel === 'kvm'))
        return { accel: 'kvm', reason: 'a worker has it' };
      if (workers.length > 0) since ??= performance.now();
      // One that has KVM may come a moment later.
      if (since !== null && performance.now() - since > SETTLE_SECONDS * 1000)
        return { accel: 'tcg', reason: 'no worker has KVM' };
      if (performance.now() - started > patienceSeconds * 1000)
        throw new InfraError(
          'no-worker',
          `queue ${shownUrl(url)}: no worker${labelText(label)} of ${versionText(version)} came within ${patienceSeconds} s: start 'loopanic worker --queue …' on a host`,
        );
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  });
}

/** The workers that could serve this run, on whatever they run guests; of those of another version it is said that they are none. */
export async function ableWorkers(
  redis: Redis,
  { label }: QueueOptions,
  version: Version,
  tell: (key: string, line: string) => void,
): Promise<WorkerRecord[]> {
  const workers = await announced(redis, 'worker', workerSchema);
  const isOther = (worker: WorkerRecord): boolean => versionText(worker.version) !== versionText(version);
  for (const [id, worker] of workers)
    if (isOther(worker))
      tell(
        `other ${id}`,
        `the worker on ${worker.host.name} is ${versionText(worker.version)}, this is ${versionText(version)}: it gets no trials`,
      );
  return [...workers.values()].filter(
    (worker) => !isOther(worker) && (label === null || worker.labels.includes(label)),
  );
}
