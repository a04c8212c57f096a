import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InfraError } from '../base/errors.js';
import type { TrialEnd } from '../outcome/decide.js';
import type { VmSpec } from '../vm/qemu-args.js';
import type { SshKeys } from '../vm/ssh.js';
import type { RunningVm } from '../vm/vm.js';
import { TRIAL_FILES } from './conclude.js';
import { startGuest } from './guest.js';
import type { TrialFiles, TrialPlan } from './plan.js';

/** The guest that the target is in, where it is not the initiator's own. `await using` ends it. */
export interface Peer extends AsyncDisposable {
  /** How the other guest reaches it. */
  link: NonNullable<VmSpec['link']>;
  /** Settles if it ends, hangs or crashes before it is told to. What a crash was its console tells. */
  ended: Promise<TrialEnd>;
  vm: RunningVm;
}

const NAME = 'the target guest';

/**
 * Boots a second guest of the same kernel with the LUN, and returns when its target listens. Its logs are target-serial.log,
 * target-guest.log and target-qemu.log in the trial's folder. Throws InfraError if it does not come so far.
 */
export async function startPeer(
  plan: TrialPlan,
  files: TrialFiles,
  dir: string,
  keys: SshKeys,
  signal: AbortSignal,
  crowding?: () => number,
): Promise<Peer> {
  // A path of a UNIX socket has room for 107 bytes: a trial's folder may be longer.
  const home = await mkdtemp(join(tmpdir(), 'loopanic-'));
  const forget = (): Promise<void> => rm(home, { recursive: true, force: true });
  let serve: () => void = () => {};
  const serving = new Promise<null>((resolve) => {
    serve = () => resolve(null);
  });
  try {
    const socket = join(home, 'link');
    const { lun, rootDisk } = files;
    const guest = await startGuest(
      {
        plan,
        files,
        dir,
        keys,
        name: NAME,
        role: 'target',
        hold: false,
        noDump: true,
        logs: {
          console: TRIAL_FILES.peerConsole,
          guest: TRIAL_FILES.peerGuest,
          qemu: TRIAL_FILES.peerQemu,
        },
        vm: {
          cpus: 1,
          memoryMiB: plan.scenario.vm.memoryMiB,
          ...(lun === null ? {} : { disk: lun }),
          ...(rootDisk === null ? {} : { rootDisk }),
          link: { socket, end: 'makes' },
        },
        crowding,
        onMarker: ({ markers, watchdog }) => {
          if (!markers.serving) return;
          // It has nothing more to tell but that it is alive.
          watchdog.attended = true;
          serve();
        },
      },
      signal,
    );
    const dispose = async (): Promise<void> => {
      await guest[Symbol.asyncDispose]();
      await forget();
    };
    const early = await Promise.race([serving, guest.ended]);
    if (early !== null) {
      await dispose();
      throw new InfraError('no-target', tell(early));
    }
    return {
      link: { socket, end: 'joins' },
      ended: guest.ended,
      vm: guest.vm,
      [Symbol.asyncDispose]: dispose,
    };
  } catch (error) {
    await forget();
    throw error;
  }
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
