import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { UsageError } from '../../base/errors.js';
import { writeFileAtomic } from '../../base/files.js';
import type { BuildOptions } from '../../module/build.js';
import type { Scenario } from '../../scenario/scenario-schema.js';
import type { KeepDumps } from '../../session/after-crash.js';
import { executeRun } from '../../session/execute.js';
import type { DumpMethod } from '../../trial/plan.js';
import type { AttendedGuest } from '../../trial/run-trial.js';
import type { Accel } from '../../vm/qemu-args.js';
import { GuestShell } from '../../vm/ssh.js';
import { type Context, progressFor } from '../context.js';
import { exitCodeOf, printRun } from '../run-output.js';

export interface RunArgs extends BuildOptions {
  scenario: string;
  kernel: string;
  module: string;
  image?: string | undefined;
  trials: number;
  dump: DumpMethod;
  keepDumps: KeepDumps;
  seed?: number | undefined;
  hardenedUsercopy?: 'on' | 'off' | undefined;
  keep: boolean;
  shell: boolean;
  console: boolean;
  json: boolean;
  results: string;
  accel: 'auto' | Accel;
}

/** `loopanic run SCENARIO`: one cell, by hand. */
export async function run(args: RunArgs, { signal }: Context): Promise<number> {
  if (args.json && args.shell)
    throw new UsageError('bad-usage', '--json and --shell both want stdout: give one of them');
  if ((args.keep || args.shell) && args.trials > 1)
    throw new UsageError('bad-usage', '--keep and --shell attend one trial: leave out --trials');
  const progress = progressFor(args.console || args.shell);
  const { hardenedUsercopy } = args;
  const result = await executeRun(
    {
      command: 'run',
      cells: [{ kernel: args.kernel, module: args.module, scenario: args.scenario }],
      image: args.image,
      trials: args.trials,
      retries: 0,
      dump: args.dump,
      keepDumps: args.keepDumps,
      results: args.results,
      accel: args.accel,
      build: args,
      ...(args.seed === undefined ? {} : { seed: args.seed }),
      ...(hardenedUsercopy
        ? {
            adjust: (scenario: Scenario) => ({
              ...scenario,
              kernel: { ...scenario.kernel, hardenedUsercopy },
            }),
          }
        : {}),
      ...(args.keep || args.shell
        ? {
            attendance: {
              hold: args.shell,
              keep: args.keep,
              attend: (guest: AttendedGuest) => attend(args, guest, signal),
            },
          }
        : {}),
      ...(args.console ? { onConsole: (chunk: Buffer) => void process.stderr.write(chunk) } : {}),
    },
    signal,
    progress,
  );
  printRun(args.json, result);
  return exitCodeOf(result.document);
}

/** What a person in the guest needs: how to reach it, a shell in it, and the guest for as long as they want it. */
async function attend(args: RunArgs, guest: AttendedGuest, signal: AbortSignal): Promise<void> {
  const port = await guest.vm.sshPort();
  const key = join(guest.dir, 'ssh-key');
  await writeFileAtomic(key, guest.keys.privateKey);
  // The key opens nothing once its guest is gone.
  guest.vm.exited.then(() => rm(key, { force: true }));
  const say = (text: string): void => void process.stderr.write(`${text}\n`);
  say(
    `guest: ssh -i ${key} -p ${port} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@127.0.0.1`,
  );
  if (args.shell) {
    say("waiting for the guest to mount; in it, 'workload' starts the trigger and 'exit' ends the trial");
    await Promise.race([guest.holding, guest.vm.exited]);
    using shell = await GuestShell.connect(port, guest.keys);
    await shell.interactive();
  }
  if (!args.keep) return;
  say(
    process.stdin.isTTY
      ? 'the guest is kept: press Enter to end it'
      : 'the guest is kept: end it with SIGINT or SIGTERM',
  );
  await new Promise<void>((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true });
    guest.vm.exited.then(() => resolve());
    if (process.stdin.isTTY) process.stdin.resume().once('data', () => resolve());
  });
  process.stdin.pause();
}
