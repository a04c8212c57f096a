import { join } from 'node:path';
import { EXIT, firstLine, LoopanicError, UsageError } from '../../base/errors.js';
import { scratchDir, writeFileAtomic } from '../../base/files.js';
import { harmless } from '../../base/harmless.js';
import { shellWord } from '../../base/shell-word.js';
import type { BuildOptions } from '../../module/build-options.js';
import type { RunDocument } from '../../results/run-schema.js';
import { executeRun } from '../../run/execute.js';
import type { RunRequest } from '../../run/prepare.js';
import type { Scenario } from '../../scenario/scenario-schema.js';
import type { AttendedGuest } from '../../trial/run-trial.js';
import { GuestShell } from '../../vm/ssh.js';
import { type Context, progressFor } from '../context.js';
import { exitCodeOf, printRun } from '../run-output.js';

export interface RunArgs
  extends BuildOptions,
    Pick<RunRequest, 'trials' | 'dump' | 'keepDumps' | 'results' | 'accel'> {
  scenario: string;
  kernel: string;
  module: string;
  image?: string | undefined;
  seed?: number | undefined;
  hardenedUsercopy?: 'on' | 'off' | undefined;
  /** False with --no-probe. */
  probe: boolean;
  keep: boolean;
  shell: boolean;
  console: boolean;
  bisect: boolean;
  json: boolean;
}

/** `loopanic run SCENARIO`: one cell, by hand. */
export async function run(args: RunArgs, context: Context): Promise<number> {
  if (!args.bisect) return runOnce(args, context);
  try {
    return await runOnce(args, context);
  } catch (error) {
    // git bisect takes most codes for bad: what says nothing of the kernel is passed over, and what would be wrong at every commit ends
    // the bisection.
    if (!(error instanceof LoopanicError)) throw error;
    const ends = error instanceof UsageError && !PASSED_OVER.includes(error.code);
    process.stderr.write(`loopanic: ${firstLine(error)}\n`);
    return ends ? BISECT_ENDS : BISECT_SKIP;
  }
}

/** Codes above 127 end a bisection; 125 passes over a commit. */
const [BISECT_ENDS, BISECT_SKIP] = [128, 125];
/** Bad input that may be one commit's. */
const PASSED_OVER = [
  'module-build-failed',
  'patch-refused',
  'no-such-module',
  'incomplete-kernel',
  'wrong-vermagic',
];

async function runOnce(args: RunArgs, { signal }: Context): Promise<number> {
  if (args.json && args.shell)
    throw new UsageError('bad-usage', '--json and --shell both want stdout: give one of them');
  if ((args.keep || args.shell) && args.trials > 1)
    throw new UsageError('bad-usage', '--keep and --shell attend one trial: leave out --trials');
  const progress = progressFor(args.console || args.shell);
  const { hardenedUsercopy, probe } = args;
  const result = await executeRun(
    {
      command: 'run',
      cells: [{ kernel: args.kernel, module: args.module, scenario: args.scenario }],
      image: args.image,
      trials: args.trials,
      retries: 0,
      byReading: true,
      // A person asked what it does.
      noExpectationOk: true,
      dump: args.dump,
      keepDumps: args.keepDumps,
      results: args.results,
      accel: args.accel,
      build: args,
      ...(args.seed === undefined ? {} : { seed: args.seed }),
      ...(hardenedUsercopy || !probe
        ? {
            adjust: {
              scenario: (scenario: Scenario) => ({
                ...scenario,
                readGate: scenario.readGate && probe,
                kernel: { ...scenario.kernel, ...(hardenedUsercopy ? { hardenedUsercopy } : {}) },
              }),
              options: [
                ...(hardenedUsercopy ? ['--hardened-usercopy', hardenedUsercopy] : []),
                ...(probe ? [] : ['--no-probe']),
              ],
            },
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
      ...(args.console
        ? {
            onConsole: (chunk: Buffer) =>
              void process.stderr.write(harmless(chunk.toString('latin1').replaceAll('\r', ''))),
          }
        : {}),
    },
    signal,
    progress,
  );
  printRun(args.json, result);
  return args.bisect ? bisectCode(result.document) : exitCodeOf(result.document);
}

/** For `git bisect run`: 0 good, 1 bad, 125 cannot be told. A stopped command must stop the bisection too. */
function bisectCode(document: RunDocument): number {
  if (document.interrupted) return EXIT.interrupted;
  const [cell] = document.cells;
  if (cell?.verdict === 'clean') return EXIT.ok;
  return cell?.verdict === 'panics' || cell?.verdict === 'exposed' ? EXIT.unexpected : BISECT_SKIP;
}

/** What a person in the guest needs: how to reach it, a shell in it, and the guest for as long as they want it. */
async function attend(args: RunArgs, guest: AttendedGuest, signal: AbortSignal): Promise<void> {
  const port = await guest.vm.sshPort();
  // In the cache: whatever ends this process, a later command finds them and takes them away.
  await using scratch = await scratchDir('ssh');
  const [key, known] = [join(scratch.path, 'key'), join(scratch.path, 'known_hosts')];
  await writeFileAtomic(key, guest.keys.privateKey);
  await writeFileAtomic(known, `[127.0.0.1]:${port} ${guest.keys.hostPublicKey}\n`);
  const say = (text: string): void => void process.stderr.write(`${text}\n`);
  const options = ['StrictHostKeyChecking=yes', `UserKnownHostsFile=${known}`, 'IdentitiesOnly=yes'];
  say(
    `guest: ssh -F none -a -x -i ${shellWord(key)} -p ${port} ${options.map((option) => `-o ${shellWord(option)}`).join(' ')} root@127.0.0.1`,
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
