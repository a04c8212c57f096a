import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { firstLine, hasErrno, InfraError } from '../base/errors.js';
import { writeJson } from '../base/files.js';
import { classifyLog, type LogEvidence } from '../outcome/classify.js';
import { CrashReader } from '../outcome/crash-report.js';
import { decideOutcome, type TrialEnd } from '../outcome/decide.js';
import { FactReader } from '../outcome/guest-facts.js';
import { firstMarker, GuestMarkers, LineSplitter } from '../outcome/guest-markers.js';
import type { TrialOutcome } from '../outcome/outcome-schema.js';
import { followFile } from '../vm/follow-file.js';
import { makeSshKeys, type SshKeys } from '../vm/ssh.js';
import { type RunningVm, startVm } from '../vm/vm.js';
import { openInitramfs } from './payload.js';
import { startPeer, TARGET_LOG } from './peer.js';
import { kernelArgs, type TrialPlan } from './plan.js';
import { dumpPorts, takeDump } from './take-dump.js';
import { CRASH_QUIET_SECONDS, Watchdog } from './watchdog.js';

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
}

/**
 * Runs one trial in `dir` (which exists and is empty) and leaves serial.log, guest.log, qemu.log and outcome.json there. Never throws for what
 * happens to the guest: that is an outcome. `signal` ends the trial; what is known by then is saved.
 */
export async function runTrial(
  plan: TrialPlan,
  dir: string,
  signal: AbortSignal,
  callbacks: TrialCallbacks = {},
  attendance: Attendance = { hold: false, keep: false },
): Promise<TrialOutcome> {
  const markers = new GuestMarkers(plan.token);
  const facts = new FactReader(plan.token);
  let started = performance.now();
  const since = (): number => Math.round(performance.now() - started) / 1000;
  const timings: Record<string, number> = {};
  const conclude = async (end: TrialEnd): Promise<TrialOutcome> => {
    timings.outcome ??= since();
    const { receiver } = plan.scenario;
    const own = classifyLog(await readLog(dir, LOG), receiver);
    const targetLog = plan.scenario.target === 'peer' ? await readLog(dir, TARGET_LOG) : '';
    const target = classifyLog(targetLog, receiver);
    // The guest with the target is part of the trial: what it says counts as much.
    const [log, file] =
      own.outcome === 'no-crash' && target.outcome !== 'no-crash' ? [target, TARGET_LOG] : [own, LOG];
    const booted = firstMarker(targetLog, plan.token);
    const elsewhere = target.warnings.filter(({ line }) => line > booted);
    const guest = facts.facts(plan.profile.hardenedUsercopyBuilt);
    const decision = decideOutcome(log, markers, guest, plan.expected, end, elsewhere);
    const cite =
      (name: string) =>
      (entry: LogEvidence): TrialOutcome['evidence'][number] => ({ file: name, ...entry });
    const outcome: TrialOutcome = {
      schemaVersion: 1,
      kernel: plan.kernel,
      module: plan.module,
      scenario: plan.scenario.name,
      trial: plan.trial,
      seed: plan.seed,
      ...decision,
      signature: log.signature,
      // A panic counts, whoever stopped what came after it.
      interrupted: end.why === 'interrupted' && log.outcome === 'no-crash',
      phase: markers.phase,
      timings,
      accel: plan.accel,
      guest,
      workload: markers.work,
      evidence: log.evidence.map(cite(file)),
      warnings: [...own.warnings.map(cite(LOG)), ...target.warnings.map(cite(TARGET_LOG))],
    };
    await writeJson(join(dir, 'outcome.json'), outcome);
    return outcome;
  };
  // A crash is judged and saved before its dump is taken: how that goes cannot change the outcome.
  let known: TrialOutcome | undefined;
  const end = await watch(plan, dir, signal, callbacks, attendance, {
    markers,
    facts,
    since,
    timings,
    start: () => {
      started = performance.now();
    },
    crashed: async (crash) => {
      known = await conclude(crash);
    },
  });
  if (!known) return conclude(end);
  await writeJson(join(dir, 'outcome.json'), { ...known, timings });
  return { ...known, timings };
}

const LOG = 'serial.log';

/** A log of this trial; empty if its QEMU was never started. One that cannot be read must not pass for an empty one. */
function readLog(dir: string, name: string): Promise<string> {
  return readFile(join(dir, name), 'latin1').catch((error: unknown) => {
    if (hasErrno(error, 'ENOENT')) return '';
    throw new InfraError('log-lost', `${join(dir, name)} cannot be read: ${firstLine(error)}`, error);
  });
}

interface Observed {
  markers: GuestMarkers;
  facts: FactReader;
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
  dir: string,
  signal: AbortSignal,
  callbacks: TrialCallbacks,
  attendance: Attendance,
  { markers, facts, since, timings, start, crashed }: Observed,
): Promise<TrialEnd> {
  if (signal.aborted) return { why: 'interrupted' };
  let finish: (end: TrialEnd) => void = () => {};
  const ended = new Promise<TrialEnd>((resolve) => {
    finish = resolve;
  });
  let held: () => void = () => {};
  const holding = new Promise<void>((resolve) => {
    held = resolve;
  });
  const { limits } = plan.scenario;
  const watchdog = new Watchdog(limits, (end) => finish(end));
  const crashes = new CrashReader();
  const enter = (): void => {
    timings[markers.phase] ??= since();
    const { work } = markers;
    callbacks.onStatus?.(
      markers.phase + (work && markers.phase === 'workload' ? `, cycle ${work.cycles + 1}` : ''),
    );
  };
  const console = new LineSplitter((line) => {
    crashes.push(line);
    if (markers.push(line)) {
      watchdog.progress();
      enter();
      if (markers.failure !== undefined) finish({ why: 'step-failed' });
      else if (markers.finished) finish({ why: 'finished' });
      watchdog.attended = markers.holding;
      if (markers.holding) held();
    } else if (markers.phase === 'boot') watchdog.progress();
    if (crashes.crash) {
      watchdog.crashed(CRASH_QUIET_SECONDS);
      // The rest of the report is still printed while a dump is taken; without one the guest ends here.
      if (crashes.crashComplete || (plan.dump === 'kdump' && crashes.crashTold)) finish({ why: 'crashed' });
    }
  });
  const guestLog = new LineSplitter((line) => facts.push(line.text));
  const onAbort = (): void => finish({ why: 'interrupted' });
  signal.addEventListener('abort', onAbort);

  try {
    const keys = makeSshKeys();
    const { scenario } = plan;
    const peered = scenario.target === 'peer';
    await using initramfs = await openInitramfs(plan, keys, attendance.hold, peered ? 'initiator' : 'both');
    callbacks.onStatus?.(peered ? 'the target guest boots' : 'boot');
    await using peer = peered ? await startPeer(plan, dir, keys, signal) : null;
    peer?.ended.then(finish);
    start();
    enter();
    const logs = {
      console: join(dir, LOG),
      guest: join(dir, 'guest.log'),
      qemu: join(dir, 'qemu.log'),
    };
    await using vm = await startVm(
      {
        accel: plan.accel,
        cpus: scenario.vm.cpus,
        ...(scenario.vm.possibleCpus === undefined ? {} : { possibleCpus: scenario.vm.possibleCpus }),
        memoryMiB: scenario.vm.memoryMiB,
        kernel: plan.files.kernel,
        kernelArgs: kernelArgs(plan),
        ...(peer ? { link: peer.link } : { disk: plan.files.lun }),
        ...(plan.files.rootDisk === null ? {} : { rootDisk: plan.files.rootDisk }),
        ...(plan.dump === 'kdump' ? { dumpPorts: dumpPorts(dir) } : {}),
      },
      initramfs.fd,
      logs,
      signal,
    );
    await using _console = await followFile(logs.console, (chunk) => {
      watchdog.sign('console');
      console.push(chunk);
      callbacks.onConsole?.(chunk);
    });
    await using _guestLog = await followFile(logs.guest, (chunk) => {
      watchdog.sign('guest');
      guestLog.push(chunk);
    });
    watchdog.start();
    vm.exited.then(({ words, code }) => finish({ why: 'exited', words, code }));
    const attended = attendance.attend?.({ vm, keys, dir, holding });
    attended?.then(
      () => finish({ why: 'left' }),
      (error: unknown) => finish({ why: 'not-started', message: firstLine(error) }),
    );
    const end = await ended;
    timings.outcome = since();
    watchdog.stop();
    if (end.why === 'crashed' && plan.dump !== 'none') {
      await crashed(end);
      const { silenceSeconds } = limits;
      const kdumpLoaded = facts.told('kdump.loaded') === '1';
      const onStatus = (text: string): void => callbacks.onStatus?.(text);
      const consoleQuietSeconds = (): number => watchdog.consoleQuietSeconds();
      await takeDump(
        { vm, dir, markers, kdumpLoaded, silenceSeconds, consoleQuietSeconds, onStatus, signal },
        plan.dump,
      );
      timings.dumped = since();
    }
    const stays = attendance.keep
      ? !['interrupted', 'exited', 'left'].includes(end.why)
      : end.why === 'finished';
    if (attended && stays) await Promise.race([attended.catch(() => {}), vm.exited, aborted(signal)]);
    return end;
  } catch (error) {
    if (signal.aborted) return { why: 'interrupted' };
    return { why: 'not-started', message: firstLine(error) };
  } finally {
    watchdog.stop();
    signal.removeEventListener('abort', onAbort);
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}
