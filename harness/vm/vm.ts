import { open } from 'node:fs/promises';
import type { Duplex } from 'node:stream';
import { execa } from 'execa';
import { firstLine, InfraError } from '../base/errors.js';
import { needProgram } from '../host/tools.js';
import { FD, qemuArgs, type VmSpec } from './qemu-args.js';
import { Qmp } from './qmp.js';

/** How QEMU ended. */
export interface VmExit {
  code: number | null;
  signal: string | null;
  /** Last line that QEMU itself wrote to its log. */
  words: string;
}

export interface VmStreams {
  /** Every chunk of the serial console, from the first byte. */
  onConsole: (chunk: Buffer) => void;
  /** Every chunk of the second serial port. */
  onGuestLog: (chunk: Buffer) => void;
}

export interface VmLogs {
  console: string;
  guest: string;
  qemu: string;
}

/** A guest that runs. `await using` ends it. */
export class RunningVm implements AsyncDisposable {
  readonly pid: number;
  readonly qmp: Qmp;
  /** Settles when QEMU is gone; never rejects. */
  readonly exited: Promise<VmExit>;
  readonly #kill: (signal: NodeJS.Signals) => void;

  constructor(pid: number, qmp: Qmp, exited: Promise<VmExit>, kill: (signal: NodeJS.Signals) => void) {
    this.pid = pid;
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
 * Starts QEMU. It is started through `setpriv --pdeathsig KILL`, so the kernel ends it when this process ends, even by SIGKILL.
 * `initrd` is a file descriptor of this process (the archive has no name on disk, so nothing can be left behind).
 */
export async function startVm(
  spec: Omit<VmSpec, 'initrd'> & { initrdFd: number },
  logs: VmLogs,
  streams: VmStreams,
): Promise<RunningVm> {
  const [setpriv, qemu] = [await needProgram('setpriv'), await needProgram('qemu-system-x86_64')];
  const qemuLog = await open(logs.qemu, 'a', 0o600);
  for (const path of [logs.console, logs.guest]) await (await open(path, 'a', 0o600)).close();
  const initrdFd = 6;
  const { initrdFd: parentFd, ...machine } = spec;
  const args = qemuArgs({ ...machine, initrd: `/dev/fd/${initrdFd}` }, logs);
  await qemuLog.write(`${['qemu-system-x86_64', ...args].join(' ')}\n`);
  // execa takes any descriptor; its types list 3 to 9 only.
  const log = qemuLog.fd as 3;
  const child = execa(setpriv, ['--pdeathsig', 'KILL', '--', qemu, ...args], {
    stdio: ['ignore', log, log, 'pipe', 'pipe', 'pipe', parentFd as 3],
    buffer: false,
    reject: false,
    cleanup: true,
    env: { LC_ALL: 'C' },
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
  const channel = (fd: number): Duplex => {
    const stream = child.stdio[fd as 3] as unknown as Duplex | null;
    if (!stream) throw new InfraError('qemu-not-started', `QEMU could not be started (no channel ${fd})`);
    stream.on('error', () => {});
    // QEMU's end of the channel is closed: close ours, or the process counts as unfinished.
    stream.on('end', () => stream.destroy());
    return stream;
  };
  channel(FD.console).on('data', streams.onConsole);
  channel(FD.guestLog).on('data', streams.onGuestLog);
  const qmp = new Qmp(channel(FD.qmp));
  const vm = new RunningVm(child.pid ?? 0, qmp, exited, (signal) => child.kill(signal));
  try {
    await qmp.negotiate();
  } catch (error) {
    await vm.stop();
    const { words } = await exited;
    throw new InfraError('qemu-failed', `QEMU did not start: ${words || firstLine(error)}`, error);
  }
  return vm;
}

async function lastWords(path: string): Promise<string> {
  const file = await open(path, 'r');
  try {
    const lines = (await file.readFile('utf8')).trim().split('\n');
    return lines.length > 1 ? (lines.at(-1) ?? '') : '';
  } finally {
    await file.close();
  }
}
