import { EXIT } from '../../base/errors.js';
import { exists } from '../../base/files.js';
import type { Progress } from '../../base/progress.js';
import { GUEST_PROGRAMS, needProgram } from '../../host/tools.js';
import { ensureKernel } from '../../kernel/fetch.js';
import { presentIds, presentKernel } from '../../kernel/store.js';
import { checkLabel } from '../../queue/protocol.js';
import { readUrl } from '../../queue/redis.js';
import { work } from '../../queue/worker.js';
import { qemuVersion } from '../../run/cell-key.js';
import { jobsThatFit, parseJobs, USUAL_NEED } from '../../run/jobs.js';
import { chooseAccel } from '../../vm/accel.js';
import type { Accel } from '../../vm/qemu-args.js';
import { type Context, progressFor } from '../context.js';
import { DEFAULT_KERNEL } from '../options.js';

export interface WorkerArgs {
  queue: string;
  jobs: string;
  labels?: string | undefined;
  accel: 'auto' | Accel;
}

/** `loopanic worker`: runs trials for others until it is ended. */
export async function worker(args: WorkerArgs, { signal }: Context): Promise<number> {
  const url = await readUrl(args.queue);
  const asked = parseJobs(args.jobs);
  const labels = (args.labels ?? '').split(',').filter(Boolean).map(checkLabel);
  for (const program of GUEST_PROGRAMS) await needProgram(program);
  const progress = progressFor();
  const { accel } = await chooseAccel(args.accel, await probeKernel(args.accel, progress));
  const jobs = asked === 'auto' ? jobsThatFit(USUAL_NEED) : asked;
  await work({ url, jobs, labels, accel, qemu: await qemuVersion() }, signal, progress);
  return EXIT.interrupted;
}

/** What KVM is tried with: any kernel that is here; one is fetched where there may be a KVM to try. */
async function probeKernel(accel: WorkerArgs['accel'], progress: Progress): Promise<string | null> {
  for (const id of await presentIds()) {
    const kernel = await presentKernel(id);
    if (kernel) return kernel.vmlinuz;
  }
  if (accel === 'tcg' || !(await exists('/dev/kvm'))) return null;
  return (await ensureKernel(DEFAULT_KERNEL, progress)).vmlinuz;
}
