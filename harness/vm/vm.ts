import { open } from 'node:fs/promises';
import type { Duplex } from 'node:stream';
import * as z from 'zod';
import { firstLine, InfraError, interruptible } from '../base/errors.js';
import { host } from '../host/command.js';
import { confinement } from '../host/confine.js';
import { needProgram } from '../host/tools.js';
import { DRIVE, FD, qemuArgs, type VmSpec } from './qemu-args.js';
import { Qmp } from './qmp.js';

/** What is read of query-blockstats (QEMU's qapi/block-core.json). */
const blockStatsSchema = z.array(
  z.object({ device: z.string(), stats: z.object({ wr_bytes: z.int().nonnegative() }) }),
);

/** What is read of the end of QEMU's log, in bytes. */
const LONGEST_WORDS = 64 * 1024;

/** How QEMU ended. */
export interface VmExit {
  code: number | null;
  signal: string | null;
  /** Last line that QEMU itself wrote to its log. */
  words: string;
}

/** Files that QEMU writes; made here with mode 0600. */
export interface VmLogs {
  /** The serial console, from the first byte. */
  console: string;
  /** The second serial port. */
  guest: string;
  qemu: string;
}

/** A guest that runs. `await using` ends it. */
export class RunningVm implements AsyncDisposable {
  readonly qmp: Qmp;
  /** Settles when QEMU is gone; never rejects. */
  readonly exited: Promise<VmExit>;
  readonly #kill: (signal: NodeJS.Signals) => void;

  constructor(qmp: Qmp, exited: Promise<VmExit>, kill: (signal: NodeJS.Signals) => void) {
    this.qmp = qmp;
    this.exited = exited;
    this.#kill = kill;
  }

  /** Port on 127.0.0.1 that leads to the guest's ssh server. QEMU chose it, so no other process can have taken it. */
  async sshPort(): Promise<number> {
    const table = await this.qmp.call('human-monitor-command', { 'command-line': 'info usernet' });
    const port = /TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)/.exec(String(table))?.[1];
    if (port === undefined) throw new InfraError('no-forward', 'QEMU reports no forwarded port');
    return Number(port);
  }

  /** Bytes that the guest has written to its first disk since it was started, as QEMU counts them. Throws InfraError if QEMU does not tell. */
  async lunBytesWritten(): Promise<number> {
    const said = blockStatsSchema.safeParse(await this.qmp.call('query-blockstats'));
    const bytes = said.data?.find(({ device }) => device === DRIVE.lun)?.stats.wr_bytes;
    if (bytes === undefined)
      throw new InfraError('qmp-error', 'QEMU does not tell what was written to the LUN');
    return bytes;
  }

  /** Ends the guest at once; its disk is a snapshot, so there is nothing to save. */
  async stop(): Promise<void> {
    this.#kill('SIGKILL');
    await this.exited;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }
}

/**
 * Starts QEMU. It is started through `setpriv --pdeathsig KILL`, so the kernel ends it when this process ends, even by SIGKILL; and with nothing
 * that a guest which breaks out of it could use beside its user's files: no new privileges, and QEMU's own system call filter.
 * `initramfs` is a file descriptor of this process: the archive has no name on disk, so nothing can be left behind.
 */
export async function startVm(
  spec: VmSpec,
  initramfs: number,
  logs: VmLogs,
  signal: AbortSignal,
): Promise<RunningVm> {
  const [setpriv, qemu] = [await needProgram('setpriv'), await needProgram('qemu-system-x86_64')];
  for (const path of [logs.console, logs.guest, ...Object.values(spec.dumpPorts ?? {})])
    await (await open(path, 'wx', 0o600)).close();
  const qemuLog = await open(logs.qemu, 'wx', 0o600);
  const args = qemuArgs(spec, logs);
  await qemuLog.write(`${['qemu-system-x86_64', ...args].join(' ')}\n`);
  // execa takes any descriptor; its types list 3 to 9 only.
  const [log, archive] = [qemuLog.fd as 3, initramfs as 3];
  const child = host(setpriv, [...confinement(), '--', qemu, ...args], {
    stdio: ['ignore', log, log, 'pipe', archive],
    buffer: false,
    reject: false,
    cleanup: true,
  });
  const closeLog = (): Promise<void> => qemuLog.close();
  const exited = child.then(
    async (result): Promise<VmExit> => {
      await closeLog();
      return {
        code: result.exitCode ?? null,
        signal: result.signal ?? null,
        words: await lastWords(logs.qemu),
      };
    },
    async (error: unknown): Promise<VmExit> => {
      await closeLog();
      return { code: null, signal: null, words: firstLine(error) };
    },
  );
  const control = child.stdio[FD.qmp] as unknown as Duplex | null;
  if (!control)
    throw new InfraError('qemu-not-started', 'QEMU could not be started: it has no control channel');
  // QEMU closed its end: close ours, or the process counts as unfinished.
  control.on('end', () => control.destroy());
  const qmp = new Qmp(control);
  const vm = new RunningVm(qmp, exited, (signal) => child.kill(signal));
  try {
    await interruptible(qmp.negotiate(), signal);
  } catch (error) {
    await vm.stop();
    if (signal.aborted) throw error;
    const { words } = await exited;
    throw new InfraError('qemu-failed', `QEMU did not start: ${words || firstLine(error)}`, error);
  }
  return vm;
}

/** The last line that QEMU wrote; empty if it wrote none behind the command that starts the log, or if that cannot be read. */
async function lastWords(path: string): Promise<string> {
  try {
    const file = await open(path, 'r');
    try {
      const { size } = await file.stat();
      const end = Buffer.alloc(Math.min(size, LONGEST_WORDS));
      await file.read(end, 0, end.length, size - end.length);
      const lines = end.toString('utf8').trim().split('\n');
      return lines.length > 1 ? (lines.at(-1) ?? '').slice(0, 500) : '';
    } finally {
      await file.close();
    }
  } catch {
    return '';
  }
}
