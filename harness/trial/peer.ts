import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InfraError } from '../base/errors.js';
import type { TrialEnd } from '../outcome/decide.js';
import type { VmSpec } from '../vm/qemu-args.js';
import type { SshKeys } from '../vm/ssh.js';
import { startVm } from '../vm/vm.js';
import { TRIAL_FILES } from './conclude.js';
import { ObservedGuest } from './observe.js';
import { openInitramfs } from './payload.js';
import { kernelArgs, type TrialPlan } from './plan.js';

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
    console: join(dir, TRIAL_FILES.peerConsole),
    guest: join(dir, TRIAL_FILES.peerGuest),
    qemu: join(dir, TRIAL_FILES.peerQemu),
  };
  const vm = stack.use(
    await startVm(
      {
        accel: plan.accel,
        cpus: 1,
        memoryMiB: plan.scenario.vm.memoryMiB,
        kernel: plan.files.kernel,
        kernelArgs: kernelArgs({ ...plan, dump: 'none' }),
        ...(plan.files.lun === null ? {} : { disk: plan.files.lun }),
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
  const guest = new ObservedGuest({
    token: plan.token,
    limits: plan.scenario.limits,
    dir,
    onEnd: (how) =>
      end(
        how.why === 'silent' || how.why === 'stalled'
          ? { ...how, of: NAME }
          : how.why === 'crashed'
            ? CRASHED
            : how,
      ),
    onMarker: () => {
      if (markers.failure !== undefined)
        end({ why: 'not-started', message: `a step failed in ${NAME}: ${markers.failure}` });
      if (!markers.serving) return;
      // It has nothing more to tell but that it is alive.
      watchdog.attended = true;
      serve();
    },
    onCrash: () => {
      if (guest.crashes.crashComplete) end(CRASHED);
    },
  });
  const { markers, watchdog } = guest;
  watchdog.start();
  stack.defer(() => watchdog.stop());
  stack.use(await guest.follow(logs));
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
