import { join } from 'node:path';
import { FactReader } from '../guest/guest-facts.js';
import { GuestMarkers, LineSplitter } from '../guest/guest-markers.js';
import { CrashReader } from '../log/crash-report.js';
import type { TrialEnd } from '../outcome/decide.js';
import { followFile } from '../vm/follow-file.js';
import type { VmSpec } from '../vm/qemu-args.js';
import type { SshKeys } from '../vm/ssh.js';
import { type RunningVm, startVm } from '../vm/vm.js';
import { MOST_BYTES } from './conclude.js';
import { openInitramfs } from './payload.js';
import { type GuestRole, kernelArgs, type TrialFiles, type TrialPlan } from './plan.js';
import { type Clock, Watchdog } from './watchdog.js';

/** A guest that is to be started. */
export interface GuestSpec {
  plan: TrialPlan;
  /** The trial's folder. */
  dir: string;
  /** Where its parts are. */
  files: TrialFiles;
  /** Names of its logs in that folder. */
  logs: { console: string; guest: string; qemu: string };
  role: GuestRole;
  /** What its end is told of, if it is not the trial's own guest: "the target guest". */
  name?: string;
  keys: SshKeys;
  /** Hold it before its workload. */
  hold: boolean;
  /** Its devices and processors; kernel and logs are the plan's. */
  vm: Omit<VmSpec, 'accel' | 'kernel' | 'kernelArgs'>;
  /** No dump will be taken of it, so its crash report is waited for to its end. */
  noDump: boolean;
  /** Called when QEMU is about to be started. */
  onStart?: () => void;
  /** It came further. */
  onMarker?: (guest: ObservedGuest) => void;
  onConsole?: ((chunk: Buffer) => void) | undefined;
  /** How many times as many CPUs its host's guests have as the host itself. */
  crowding?: (() => number) | undefined;
  /** For tests: monotonic milliseconds. */
  clock?: Clock;
}

/** What is known of a guest while it runs. */
export interface ObservedGuest {
  readonly markers: GuestMarkers;
  readonly facts: FactReader;
  readonly watchdog: Watchdog;
  /** Gives it a reason to be over; the first counts. */
  finish(end: TrialEnd): void;
}

/** A guest that runs. `await using` ends it, and reads what is left in its logs. */
export interface StartedGuest extends ObservedGuest, AsyncDisposable {
  readonly vm: RunningVm;
  /** Settles with the first reason for the guest to be over. It goes on until it is disposed of. */
  readonly ended: Promise<TrialEnd>;
}

/** Starts a guest and watches it: its two serial ports, its QEMU, and its time. Throws InfraError if it cannot be started. */
export async function startGuest(spec: GuestSpec, signal: AbortSignal): Promise<StartedGuest> {
  const { plan, dir, name } = spec;
  const undo: (() => unknown)[] = [];
  const dispose = async (): Promise<void> => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  let settle: (end: TrialEnd) => void = () => {};
  const ended = new Promise<TrialEnd>((resolve) => {
    settle = resolve;
  });
  const finish = (end: TrialEnd): void =>
    settle(name === undefined ? end : endOf(name, end, observed.markers.failure));
  const observed: ObservedGuest = {
    markers: new GuestMarkers(plan.token, plan.expected.cycles),
    facts: new FactReader(plan.token),
    watchdog: new Watchdog(
      { ...plan.scenario.limits, memoryMiB: plan.scenario.vm.memoryMiB },
      dir,
      finish,
      spec.clock,
      spec.crowding,
    ),
    finish,
  };
  try {
    const logs = {
      console: join(dir, spec.logs.console),
      guest: join(dir, spec.logs.guest),
      qemu: join(dir, spec.logs.qemu),
    };
    const initramfs = await openInitramfs(plan, spec.files, spec.keys, spec.hold, spec.role);
    undo.push(() => initramfs[Symbol.asyncDispose]());
    const args = kernelArgs(spec.noDump ? { ...plan, dump: 'none' } : plan);
    const machine = { ...spec.vm, accel: plan.accel, kernel: spec.files.kernel, kernelArgs: args };
    spec.onStart?.();
    const vm = await startVm(machine, initramfs.fd, logs, signal);
    undo.push(() => vm[Symbol.asyncDispose]());
    const followed = await follow(observed, logs, spec);
    undo.push(() => followed[Symbol.asyncDispose]());
    observed.watchdog.start();
    undo.push(() => observed.watchdog.stop());
    vm.exited.then(({ words, code }) => finish({ why: 'exited', words, code }));
    const stop = (): void => finish({ why: 'interrupted' });
    signal.addEventListener('abort', stop, { once: true });
    undo.push(() => signal.removeEventListener('abort', stop));
    if (signal.aborted) stop();
    return { ...observed, vm, ended, [Symbol.asyncDispose]: dispose };
  } catch (error) {
    await dispose();
    throw error;
  }
}

/**
 * The end of a guest that is not the trial's own. Its memory is not the one that would be dumped, so its crash is no `crashed`: its
 * console tells.
 */
function endOf(name: string, end: TrialEnd, failure: string | undefined): TrialEnd {
  switch (end.why) {
    case 'silent':
    case 'stalled':
    case 'exited':
      return { ...end, of: name };
    case 'crashed':
      return { why: 'exited', words: 'it crashed', code: null, of: name };
    case 'step-failed':
      return { why: 'not-started', message: `a step failed in ${name}: ${failure}` };
    default:
      return end;
  }
}

/** Reads both serial ports of a guest until it is disposed of, and then what is left in them. */
async function follow(
  { markers, facts, watchdog, finish }: ObservedGuest,
  logs: { console: string; guest: string },
  { onMarker, onConsole, noDump, plan }: GuestSpec,
): Promise<AsyncDisposable> {
  const crashes = new CrashReader();
  const console = new LineSplitter((line) => {
    crashes.push(line);
    if (markers.push(line)) {
      watchdog.booted();
      watchdog.progress();
      if (markers.failure !== undefined) finish({ why: 'step-failed' });
      else if (markers.finished) finish({ why: 'finished' });
      onMarker?.({ markers, facts, watchdog, finish });
    } else if (markers.phase === 'boot') watchdog.bootLine(line.text);
    if (!crashes.crash) return;
    watchdog.crashed();
    // The rest of the report is still printed while a dump is taken; without one the guest ends here.
    if (crashes.crashComplete || (!noDump && plan.dump === 'kdump' && crashes.crashTold))
      finish({ why: 'crashed' });
  });
  const guestLog = new LineSplitter((line) => facts.push(line.text, line.number));
  const first = await followFile(logs.console, MOST_BYTES + 1, (chunk) => {
    watchdog.sign('console', chunk);
    console.push(chunk);
    onConsole?.(chunk);
  });
  try {
    const second = await followFile(logs.guest, MOST_BYTES + 1, (chunk) => {
      watchdog.sign('guest', chunk);
      guestLog.push(chunk);
    });
    return {
      async [Symbol.asyncDispose]() {
        await second[Symbol.asyncDispose]();
        await first[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    await first[Symbol.asyncDispose]();
    throw error;
  }
}
