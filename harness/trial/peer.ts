import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InfraError } from '../base/errors.js';
import { CrashReader } from '../outcome/crash-report.js';
import type { TrialEnd } from '../outcome/decide.js';
import { GuestMarkers, LineSplitter } from '../outcome/guest-markers.js';
import { followFile } from '../vm/follow-file.js';
import type { VmSpec } from '../vm/qemu-args.js';
import type { SshKeys } from '../vm/ssh.js';
import { startVm } from '../vm/vm.js';
import { openInitramfs } from './payload.js';
import { kernelArgs, type TrialPlan } from './plan.js';
import { CRASH_QUIET_SECONDS, Watchdog } from './watchdog.js';

/** The guest that the target is in, where it is not the initiator's own. `await using` ends it. */
export interface Peer extends AsyncDisposable {
  /** How the other guest reaches it. */
  link: NonNullable<VmSpec['link']>;
  /** Settles if it ends, hangs or crashes before it is told to. What a crash was its console tells. */
  ended: Promise<TrialEnd>;
}

/**
 * Boots a second guest of the same kernel with the LUN, and returns when its target listens. Its logs are target-serial.log, target-guest.log and target-qemu.log in the
 * trial's folder. Throws InfraError if it does not come so far.
 */
export async function startPeer(
  plan: TrialPlan,
  dir: string,
  keys: SshKeys,
  signal: AbortSignal,
): Promise<Peer> {
  const undo: (() => unknown)[] = [];
  const dispose = async (): Promise<void> => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  try {
    return await boot(plan, dir, keys, signal, undo, dispose);
  } catch (error) {
    await dispose();
    throw error;
  }
}

/** The target guest's console, in the trial's folder. */
export const TARGET_LOG = 'target-serial.log';
const NAME = 'the target guest';
/** Its console tells what crashed; the guest whose memory would be dumped is the other one, so this is no `crashed`. */
const CRASHED: TrialEnd = { why: 'exited', words: 'it crashed', code: null, of: NAME };

async function boot(
  plan: TrialPlan,
  dir: string,
  keys: SshKeys,
  signal: AbortSignal,
  undo: (() => unknown)[],
  dispose: () => Promise<void>,
): Promise<Peer> {
  const stack = {
    defer: (step: () => unknown) => void undo.push(step),
    use: <T extends AsyncDisposable>(resource: T): T => {
      undo.push(() => resource[Symbol.asyncDispose]());
      return resource;
    },
  };
  // A path of a UNIX socket has room for 107 bytes: a trial's folder may be longer.
  const home = await mkdtemp(join(tmpdir(), 'loopanic-'));
  stack.defer(() => rm(home, { recursive: true, force: true }));
  const socket = join(home, 'link');
  const initramfs = stack.use(await openInitramfs(plan, keys, false, 'target'));
  const logs = {
    console: join(dir, TARGET_LOG),
    guest: join(dir, 'target-guest.log'),
    qemu: join(dir, 'target-qemu.log'),
  };
  const vm = stack.use(
    await startVm(
      {
        accel: plan.accel,
        cpus: 1,
        memoryMiB: plan.scenario.vm.memoryMiB,
        kernel: plan.files.kernel,
        kernelArgs: kernelArgs({ ...plan, dump: 'none' }),
        disk: plan.files.lun,
        ...(plan.files.rootDisk === null ? {} : { rootDisk: plan.files.rootDisk }),
        link: { socket, end: 'makes' },
      },
      initramfs.fd,
      logs,
      signal,
    ),
  );
  let end: (how: TrialEnd) => void = () => {};
  const ended = new Promise<TrialEnd>((resolve) => {
    end = resolve;
  });
  let serve: () => void = () => {};
  const serving = new Promise<void>((resolve) => {
    serve = resolve;
  });
  const markers = new GuestMarkers(plan.token);
  const crashes = new CrashReader();
  const watchdog = new Watchdog(plan.scenario.limits, (how) =>
    end(how.why === 'silent' || how.why === 'stalled' ? { ...how, of: NAME } : CRASHED),
  );
  // Once it serves it has nothing more to tell but that it is alive.
  watchdog.start();
  stack.defer(() => watchdog.stop());
  const console = new LineSplitter((line) => {
    crashes.push(line);
    if (crashes.crash) {
      watchdog.crashed(CRASH_QUIET_SECONDS);
      if (crashes.crashComplete) end(CRASHED);
    }
    if (markers.push(line) || markers.phase === 'boot') watchdog.progress();
    if (markers.failure !== undefined)
      end({ why: 'not-started', message: `a step failed in ${NAME}: ${markers.failure}` });
    if (line.text.endsWith(`loopanic:${plan.token}: serving`)) {
      watchdog.attended = true;
      serve();
    }
  });
  stack.use(
    await followFile(logs.console, (chunk) => {
      watchdog.sign('console');
      console.push(chunk);
    }),
  );
  stack.use(await followFile(logs.guest, () => watchdog.sign('guest')));
  vm.exited.then(({ words, code }) => end({ why: 'exited', words, code, of: NAME }));
  const stop = (): void => end({ why: 'interrupted' });
  signal.addEventListener('abort', stop, { once: true });
  stack.defer(() => signal.removeEventListener('abort', stop));
  const early = await Promise.race([serving.then(() => null), ended]);
  if (early !== null) throw new InfraError('no-target', tell(early));
  return {
    link: { socket, end: 'joins' },
    ended,
    [Symbol.asyncDispose]: dispose,
  };
}

/** Why it never served. */
function tell(end: TrialEnd): string {
  switch (end.why) {
    case 'exited':
      return `${NAME} ended: ${end.words}`;
    case 'not-started':
      return end.message;
    case 'silent':
    case 'stalled':
      return `${NAME}: ${end.why === 'silent' ? 'no output' : 'no progress'} for ${end.seconds} s`;
    default:
      return `${NAME} ${end.why}`;
  }
}
