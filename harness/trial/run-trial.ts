import { join } from 'node:path';
import { firstLine } from '../base/errors.js';
import { writeJson } from '../base/files.js';
import type { GuestMarkers } from '../guest/guest-markers.js';
import type { TrialEnd } from '../outcome/decide.js';
import type { TrialOutcome } from '../outcome/outcome-schema.js';
import { makeSshKeys, type SshKeys } from '../vm/ssh.js';
import type { RunningVm } from '../vm/vm.js';
import { TRIAL_FILES } from './conclude.js';
import { startGuest } from './guest.js';
import { startPeer } from './peer.js';
import type { TrialFiles, TrialPlan } from './plan.js';
import { TrialRecord } from './record.js';
import { dumpPorts, takeDump } from './take-dump.js';

/** A person's wishes for one trial. */
export interface Attendance {
  /** Hold the guest before its workload, with everything mounted, until someone starts it there. */
  hold: boolean;
  /** Called with the running VM, which has yet to boot. The trial ends when the promise settles, if not before. */
  attend?: (guest: AttendedGuest) => Promise<void>;
  /** Keep even a guest that crashed or failed until `attend` settles; one whose workload ended is kept in any case. */
  keep: boolean;
}

export interface AttendedGuest {
  vm: RunningVm;
  keys: SshKeys;
  /** The trial's folder. */
  dir: string;
  /** Settles when a held guest has everything mounted and waits. */
  holding: Promise<void>;
}

export interface TrialCallbacks {
  /** What the trial is doing, for progress. */
  onStatus?: (text: string) => void;
  /** Every chunk of the serial console. */
  onConsole?: (chunk: Buffer) => void;
  /** It crashed, and its dump is about to be taken. */
  onCrash?: (end: TrialEnd, timings: Record<string, number>) => void;
  /** How many times as many CPUs its host's guests have as the host itself; what is not 1 or less gives it more time. */
  crowding?: () => number;
}

/**
 * Runs one trial, whose parts are at `files` on this host, in `dir` (which exists and is empty) and leaves plan.json, serial.log,
 * guest.log, qemu.log and outcome.json there. Never throws for what happens to the guest: that is an outcome. `signal` ends the trial;
 * what is known by then is saved.
 */
export async function runTrial(
  plan: TrialPlan,
  files: TrialFiles,
  dir: string,
  signal: AbortSignal,
  callbacks: TrialCallbacks = {},
  attendance: Attendance = { hold: false, keep: false },
): Promise<TrialOutcome> {
  const timings: Record<string, number> = {};
  let started = performance.now();
  const since = (): number => Math.round(performance.now() - started) / 1000;
  // Before the guest says a word: whoever finds its logs can read them.
  await writeJson(join(dir, TRIAL_FILES.plan), plan);
  const record = new TrialRecord(plan, dir);
  const end = await watch(plan, files, dir, signal, callbacks, attendance, {
    since,
    timings,
    start: () => {
      started = performance.now();
    },
    crashed: async (crash) => {
      timings.outcome ??= since();
      await record.crashed(crash, timings);
      callbacks.onCrash?.(crash, { ...timings });
    },
  });
  timings.outcome ??= since();
  return record.ended(end, timings);
}

interface Observed {
  since: () => number;
  timings: Record<string, number>;
  /** QEMU starts now: seconds count from here. */
  start: () => void;
  /** The guest has crashed and its dump is about to be taken. */
  crashed: (end: TrialEnd) => Promise<void>;
}

/** Boots the guest and watches it until there is a reason to end the trial. The VM is gone when this returns. */
async function watch(
  plan: TrialPlan,
  files: TrialFiles,
  dir: string,
  signal: AbortSignal,
  callbacks: TrialCallbacks,
  attendance: Attendance,
  { since, timings, start, crashed }: Observed,
): Promise<TrialEnd> {
  if (signal.aborted) return { why: 'interrupted' };
  let held: () => void = () => {};
  const holding = new Promise<void>((resolve) => {
    held = resolve;
  });
  // A guest may speak before its start has returned.
  let withLun: (vm: RunningVm) => void = () => {};
  const lun = new Promise<RunningVm>((resolve) => {
    withLun = resolve;
  });
  let before: Promise<number | null> | undefined;
  const bytesWritten = async (): Promise<number> => (await lun).lunBytesWritten();
  const enter = ({ phase, work }: GuestMarkers): void => {
    timings[phase] ??= since();
    const cycle = work && phase === 'workload' ? Math.min(work.cycles + 1, plan.expected.cycles) : null;
    callbacks.onStatus?.(cycle === null ? phase : `${phase}, cycle ${cycle} of ${plan.expected.cycles}`);
  };
  try {
    const keys = makeSshKeys();
    const { scenario } = plan;
    const peered = scenario.where === 'peer';
    callbacks.onStatus?.(peered ? 'the target guest boots' : 'boot');
    await using peer = peered ? await startPeer(plan, files, dir, keys, signal, callbacks.crowding) : null;
    const { cpus, possibleCpus, memoryMiB } = scenario.vm;
    await using guest = await startGuest(
      {
        plan,
        files,
        dir,
        keys,
        role: peered ? 'initiator' : 'both',
        hold: attendance.hold,
        noDump: false,
        logs: { console: TRIAL_FILES.console, guest: TRIAL_FILES.guest, qemu: TRIAL_FILES.qemu },
        vm: {
          cpus,
          memoryMiB,
          ...(possibleCpus === undefined ? {} : { possibleCpus }),
          ...(peer ? { link: peer.link } : files.lun === null ? {} : { disk: files.lun }),
          ...(files.rootDisk === null ? {} : { rootDisk: files.rootDisk }),
          ...(plan.dump === 'kdump' ? { dumpPorts: dumpPorts(dir) } : {}),
        },
        onStart: () => {
          start();
          timings.boot ??= since();
        },
        onMarker: ({ markers, watchdog }) => {
          enter(markers);
          // What was written before its file system was mounted is none of its workload's. Not later: the guest does not wait.
          if (markers.phase === 'mount' || markers.phase === 'workload')
            before ??= bytesWritten().catch(() => null);
          // Only one that was to hold may take its time.
          watchdog.attended = attendance.hold && markers.holding;
          if (watchdog.attended) held();
        },
        onConsole: callbacks.onConsole,
        crowding: callbacks.crowding,
      },
      signal,
    );
    const { vm, markers, facts, watchdog, finish } = guest;
    withLun(peer?.vm ?? vm);
    peer?.ended.then(finish);
    const attended = attendance.attend?.({ vm, keys, dir, holding });
    attended?.then(
      () => finish({ why: 'left' }),
      (error: unknown) => finish({ why: 'not-started', message: firstLine(error) }),
    );
    const end = await guest.ended;
    if (end.why === 'finished' && files.lun === null) end.lunBytesWritten = null;
    else if (end.why === 'finished') {
      const [first, last] = [await before, await bytesWritten().catch(() => null)];
      if (first != null && last !== null) end.lunBytesWritten = last - first;
    }
    timings.outcome = since();
    watchdog.stop();
    if (end.why === 'crashed' && plan.dump !== 'none') {
      await crashed(end);
      const silenceSeconds = scenario.limits.silenceSeconds * watchdog.slowness;
      const kdumpLoaded = facts.told('kdump.loaded') === '1';
      const onStatus = (text: string): void => callbacks.onStatus?.(text);
      const consoleQuietSeconds = (): number => watchdog.consoleQuietSeconds();
      await takeDump(
        {
          vm,
          dir,
          markers,
          memoryMiB: scenario.vm.memoryMiB,
          kdumpLoaded,
          silenceSeconds,
          consoleQuietSeconds,
          onStatus,
          signal,
        },
        plan.dump,
      );
      timings.dumped = since();
    }
    const stays = attendance.keep
      ? !['interrupted', 'exited', 'left'].includes(end.why)
      : end.why === 'finished';
    if (attended && stays) await Promise.race([attended.catch(() => {}), vm.exited, aborted(signal)]);
    // Before what is left of its output is read: a guest may go on for ever.
    await vm.stop();
    return end;
  } catch (error) {
    if (signal.aborted) return { why: 'interrupted' };
    return { why: 'not-started', message: firstLine(error) };
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}
