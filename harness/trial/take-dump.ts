import { chmod, open, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { firstLine, InfraError } from '../base/errors.js';
import { sha256OfFile, writeJson } from '../base/files.js';
import type { GuestMarkers } from '../guest/guest-markers.js';
import { host } from '../host/command.js';
import { confinement } from '../host/confine.js';
import { findProgram, needProgram } from '../host/tools.js';
import type { DumpRecord, DumpRung } from '../outcome/dump-schema.js';
import type { RunningVm } from '../vm/vm.js';
import { checkFlattened } from './flattened.js';
import type { DumpMethod } from './plan.js';

/** A crashed guest whose memory is wanted. */
export interface CrashedGuest {
  vm: RunningVm;
  /** The trial's folder: vmcore, vmcore-dmesg.txt and dump.json are left there. */
  dir: string;
  markers: GuestMarkers;
  /** Of the guest: no dump of it is much larger. */
  memoryMiB: number;
  /** The crash kernel was loaded before the crash. */
  kdumpLoaded: boolean;
  /** Seconds without headway of the crash kernel after which it has failed. */
  silenceSeconds: number;
  /** Seconds since the last byte on the console. */
  consoleQuietSeconds: () => number;
  onStatus: (text: string) => void;
  signal: AbortSignal;
}

/** Where the crash kernel's ports end on this host. */
export function dumpPorts(dir: string): { dmesg: string; vmcore: string } {
  return { dmesg: join(dir, 'vmcore-dmesg.txt'), vmcore: join(dir, 'vmcore.flat') };
}

const POLL_MS = 200;
/** Times `silenceSeconds` that a crash kernel may take to come up while it keeps printing. */
const BOOT_FACTOR = 4;
/** And in all: some dumps are large, and none goes on for ever. */
const MOST_SILENCES = 20;
/** Seconds that makedumpfile may take for one dump. */
const RESTORE_SECONDS = 900;
const MIB = 2 ** 20;

/**
 * Captures the memory of a crashed guest, down a ladder: the guest's own crash kernel, QEMU's dump-guest-memory, nothing but the serial
 * log. Every rung is recorded in dump.json. A dump that fails is recorded, not thrown: the outcome is known before, and stays. Throws
 * only if dump.json itself cannot be written.
 */
export async function takeDump(guest: CrashedGuest, method: DumpMethod): Promise<void> {
  const started = performance.now();
  const seconds = (from: number): number => Math.round(performance.now() - from) / 1000;
  const ladder: DumpRung[] = [];
  const ports = dumpPorts(guest.dir);
  const vmcore = join(guest.dir, 'vmcore');
  let taken: TakenDump = { bytes: 0, sha256: null, readable: { makedumpfile: null, crash: null } };
  let took = 0;
  const rungs = { kdump: ['kdump', 'qmp'], qmp: ['qmp'], none: [] } as const;
  for (const rung of rungs[method]) {
    if (guest.signal.aborted) break;
    const from = performance.now();
    try {
      const reason = await (rung === 'kdump' ? waitForKdump(guest) : dumpByQemu(guest));
      took = seconds(started);
      taken = await describe(vmcore);
      ladder.push({ method: rung, ok: true, reason, seconds: seconds(from) });
      break;
    } catch (error) {
      await rm(vmcore, { force: true });
      ladder.push({ method: rung, ok: false, reason: firstLine(error), seconds: seconds(from) });
    }
  }
  const worked = ladder.find((rung) => rung.ok);
  await rm(ports.vmcore, { force: true });
  if ((await size(ports.dmesg)) === 0) await rm(ports.dmesg, { force: true });
  if (worked && (await size(ports.dmesg)) === 0) await extractDmesg(vmcore, ports.dmesg);
  const record: DumpRecord = {
    schemaVersion: 1,
    method: worked?.method ?? 'serial',
    complete: worked !== undefined,
    ...taken,
    seconds: worked ? took : seconds(started),
    kept: worked !== undefined,
    ladder,
  };
  await writeJson(join(guest.dir, 'dump.json'), record);
}

type TakenDump = Pick<DumpRecord, 'bytes' | 'sha256' | 'readable'>;

/** Throws InfraError if the dump is empty, and what the system says if it cannot be read: then the rung has failed. */
async function describe(vmcore: string): Promise<TakenDump> {
  const bytes = await size(vmcore);
  if (bytes === 0) throw new InfraError('dump-empty', 'the dump is empty');
  const readable = { makedumpfile: await readableByMakedumpfile(vmcore), crash: null };
  return { bytes, sha256: await sha256OfFile(vmcore), readable };
}

/** Memory, with room for headers and notes. */
const mostBytes = ({ memoryMiB }: { memoryMiB: number }): number => (1.25 * memoryMiB + 64) * MIB;
/** No kernel's log is larger. */
const MOST_DMESG = 64 * MIB;

/** Which of the crash kernel's ports a guest has sent more through than it can have to say; null if none. It can write to them at any time. */
export async function floodedPort(dir: string, guest: { memoryMiB: number }): Promise<number | null> {
  const ports = dumpPorts(dir);
  if ((await size(ports.vmcore)) > mostBytes(guest)) return mostBytes(guest);
  return (await size(ports.dmesg)) > MOST_DMESG ? MOST_DMESG : null;
}

/** Waits while the crash kernel makes headway: output on the console, or a growing dump. */
async function waitForKdump(guest: CrashedGuest): Promise<string> {
  const { markers } = guest;
  const { vmcore } = dumpPorts(guest.dir);
  let gone = false;
  guest.vm.exited.then(() => {
    gone = true;
  });
  if (!guest.kdumpLoaded)
    throw new InfraError('kdump-failed', 'it crashed before its crash kernel was loaded');
  const started = performance.now();
  const since = (from: number): number => (performance.now() - from) / 1000;
  let bytes = 0;
  let state = markers.capture;
  let lastProgress = started;
  const verbs = new Set<string>();
  while (markers.capture !== 'done') {
    if (since(started) > MOST_SILENCES * guest.silenceSeconds)
      throw new InfraError(
        'kdump-failed',
        `the crash kernel took more than ${MOST_SILENCES * guest.silenceSeconds} s`,
      );
    if (guest.signal.aborted)
      throw new InfraError('interrupted', 'interrupted while the crash kernel was at work');
    if (gone) throw new InfraError('kdump-failed', 'QEMU ended while the crash kernel was at work');
    if (markers.capture?.startsWith('failed'))
      throw new InfraError(
        'kdump-failed',
        `the crash kernel gave up: ${markers.capture.slice('failed '.length)}`,
      );
    const now = await size(vmcore);
    if ((await floodedPort(guest.dir, guest)) !== null)
      throw new InfraError(
        'kdump-failed',
        `the crash kernel wrote more than the guest's memory: ${now} bytes`,
      );
    // What it says counts once for each step, whatever it says of that.
    const verb = /^\w*/.exec(markers.capture ?? '')?.[0] ?? '';
    if (now > bytes || (markers.capture !== state && !verbs.has(verb))) lastProgress = performance.now();
    verbs.add(verb);
    [bytes, state] = [now, markers.capture];
    // While it boots, its messages are headway, for a while; once it is up only the dump is.
    const booting = state === undefined && since(started) < BOOT_FACTOR * guest.silenceSeconds;
    const still = booting ? Math.min(since(lastProgress), guest.consoleQuietSeconds()) : since(lastProgress);
    if (still > guest.silenceSeconds) {
      const where = state === undefined ? 'the crash kernel never came up' : `it stopped after "${state}"`;
      throw new InfraError(
        'kdump-failed',
        `no headway of the crash kernel for ${guest.silenceSeconds} s: ${where}`,
      );
    }
    guest.onStatus(
      `kdump: ${markers.capture ?? 'crash kernel boots'}${bytes > 0 ? `, ${(bytes / MIB).toFixed(0)} MiB` : ''}`,
    );
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  await unflatten(vmcore, join(guest.dir, 'vmcore'), mostBytes(guest));
  return 'the crash kernel wrote the dump';
}

/** The crash kernel and QEMU write makedumpfile's flattened format. crash reads it too, but plain is what people and tools expect. */
async function unflatten(flat: string, vmcore: string, most: number): Promise<void> {
  await checkFlattened(flat, most);
  const makedumpfile = await findProgram('makedumpfile');
  if (!makedumpfile) {
    await rename(flat, vmcore);
    await chmod(vmcore, 0o600);
    return;
  }
  const input = await open(flat, 'r');
  try {
    const done = await confined(makedumpfile, ['-R', vmcore], { stdin: input.fd as 3 });
    if (done.failed)
      throw new InfraError('dump-damaged', `makedumpfile cannot restore the dump: ${lastLine(done.all)}`);
  } finally {
    await input.close();
  }
  await chmod(vmcore, 0o600);
}

async function dumpByQemu(guest: CrashedGuest): Promise<string> {
  const { qmp } = guest.vm;
  const flat = dumpPorts(guest.dir).vmcore;
  await rm(flat, { force: true });
  await qmp.call('dump-guest-memory', {
    paging: false,
    protocol: `file:${flat}`,
    format: 'kdump-zlib',
    detach: true,
  });
  let completed = -1;
  let lastProgress = performance.now();
  for (;;) {
    if (guest.signal.aborted) throw new InfraError('interrupted', 'interrupted while QEMU was dumping');
    const state = (await qmp.call('query-dump')) as { status: string; completed: number; total: number };
    if (state.status === 'completed') break;
    if (state.status === 'failed') throw new InfraError('qmp-dump-failed', 'QEMU could not dump the memory');
    if (state.completed > completed) lastProgress = performance.now();
    completed = state.completed;
    if ((performance.now() - lastProgress) / 1000 > guest.silenceSeconds)
      throw new InfraError('qmp-dump-failed', `QEMU's dump made no progress for ${guest.silenceSeconds} s`);
    guest.onStatus(`QEMU dumps: ${Math.round((100 * completed) / Math.max(state.total, 1))} %`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  await unflatten(flat, join(guest.dir, 'vmcore'), mostBytes(guest));
  return 'QEMU wrote the dump';
}

/** makedumpfile, which reads what a guest made: with no more privileges than QEMU has, and with an end. */
async function confined(program: string, args: string[], options: { stdin?: 3 } = {}) {
  return host(await needProgram('setpriv'), [...confinement(), '--', program, ...args], {
    ...options,
    reject: false,
    all: true,
    timeout: RESTORE_SECONDS * 1000,
  });
}

async function extractDmesg(vmcore: string, target: string): Promise<void> {
  const makedumpfile = await findProgram('makedumpfile');
  if (!makedumpfile) return;
  const done = await confined(makedumpfile, ['--dump-dmesg', vmcore, target]);
  if (done.failed) await rm(target, { force: true });
  else await chmod(target, 0o600);
}

async function readableByMakedumpfile(vmcore: string): Promise<boolean | null> {
  const makedumpfile = await findProgram('makedumpfile');
  if (!makedumpfile) return null;
  const scratch = `${vmcore}.dmesg-check`;
  const done = await confined(makedumpfile, ['--dump-dmesg', vmcore, scratch]);
  const found = await size(scratch);
  await rm(scratch, { force: true });
  return !done.failed && found > 0;
}

async function size(path: string): Promise<number> {
  return stat(path).then(
    (info) => info.size,
    () => 0,
  );
}

function lastLine(text: string): string {
  return (
    text
      .trim()
      .split(/[\r\n]/)
      .at(-1) ?? ''
  );
}
