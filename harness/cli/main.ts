#!/usr/bin/env node
import yargs from 'yargs';
import { hideBin } from 'yargs/helpers';
import { cleanedUp } from '../base/cleanup.js';
import { EXIT, firstLine, LoopanicError, UsageError } from '../base/errors.js';
import { harmless } from '../base/harmless.js';
import { ending } from './act.js';
import { analyzeCommand } from './commands/analyze.js';
import { bisectCommand } from './commands/bisect.js';
import { bugCommand } from './commands/bug.js';
import { classifyCommand } from './commands/classify.js';
import { cleanCommand } from './commands/clean.js';
import { doctorCommand } from './commands/doctor.js';
import { imageCommand } from './commands/image.js';
import { kernelCommand } from './commands/kernel.js';
import { matrixCommand } from './commands/matrix.js';
import { moduleCommand } from './commands/module.js';
import { nightlyUnitCommand } from './commands/nightly.js';
import {
  bundleCommand,
  compareCommand,
  historyCommand,
  mergeCommand,
  reportCommand,
} from './commands/report.js';
import { runCommand } from './commands/run.js';
import { scenarioCommand } from './commands/scenario.js';
import { setupCommand } from './commands/setup.js';
import { validateCommand } from './commands/validate.js';
import { workerCommand } from './commands/worker.js';
import { refuseRepeated } from './given-twice.js';
import { globalOptions } from './options.js';
import { STDIN } from './stdin.js';

// yargs makes an empty string of a lone dash.
const argv = hideBin(process.argv).map((word) => (word === '-' ? STDIN : word));

/** Tells an error in one line (with --verbose its trace) and returns the exit code that it means. */
function tell(error: unknown): number {
  const known = error instanceof LoopanicError;
  // The system's own refusals (disk full, no permission) need no trace either.
  const system = error instanceof Error && 'syscall' in error && 'code' in error;
  const verbose = process.argv.includes('--verbose');
  const code = known ? error.code : system ? String(error.code) : 'internal';
  const message = harmless(`${known || system ? '' : 'internal error: '}${firstLine(error)}`);
  process.stderr.write(`loopanic: ${message} [${code}]\n`);
  if (process.argv.includes('--json'))
    process.stdout.write(`${JSON.stringify({ error: { code, message } }, null, 2)}\n`);
  if ((verbose || !(known || system)) && error instanceof Error)
    process.stderr.write(`${harmless(error.stack ?? '')}\n`);
  if (verbose && error instanceof Error && error.cause)
    process.stderr.write(`cause: ${String(error.cause)}\n`);
  return known ? error.exitCode : EXIT.noVerdict;
}

// Exit 1 means that a cell contradicts its expectation: nothing else may end with it.
for (const event of ['uncaughtException', 'unhandledRejection'] as const)
  process.on(event, (error: unknown) => process.exit(tell(error)));
// A reader that has gone (| head) is no reason to give up a trial.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
// chalk knows --no-color, but not the convention.
if (process.env.NO_COLOR) process.env.FORCE_COLOR = '0';

const commands = [
  doctorCommand,
  setupCommand,
  runCommand,
  validateCommand,
  matrixCommand,
  workerCommand,
  bisectCommand,
  nightlyUnitCommand,
  reportCommand,
  compareCommand,
  mergeCommand,
  historyCommand,
  bundleCommand,
  classifyCommand,
  analyzeCommand,
  kernelCommand,
  bugCommand,
  moduleCommand,
  imageCommand,
  scenarioCommand,
  cleanCommand,
];
let cli = globalOptions(yargs(argv))
  .scriptName('loopanic')
  .usage(
    '$0 COMMAND\n\nReproduces kernel panics of storage over a loopback, and says which kernels and modules still have them.',
  );
for (const add of commands) cli = add(cli);
const parser = cli
  .demandCommand(1, 'which command?')
  .strict()
  .recommendCommands()
  .alias('h', 'help')
  .completion('completion', 'completions for bash and zsh: source <(loopanic completion)')
  .wrap(process.stdout.isTTY ? Math.min(120, process.stdout.columns) : 120)
  .check((args) => {
    // yargs takes an option without its value for one that was not given, or gives it its default.
    for (const [index, word] of argv.entries()) {
      if (word === '--') break;
      const [, name, given] = /^--([a-zA-Z][\w-]*)(=?)/.exec(word) ?? [];
      if (name === undefined || !Object.hasOwn(args, name)) continue;
      if (args[name] === '') throw new UsageError('bad-usage', `--${name}: is empty`);
      const missing = given === '' && (argv[index + 1]?.startsWith('--') ?? true);
      if (typeof args[name] !== 'boolean' && missing)
        throw new UsageError('bad-usage', `--${name}: needs a value`);
    }
    const ofCommand: Record<string, string[]> = { matrix: ['kernel'], kernel: ['patch'], module: ['patch'] };
    refuseRepeated(argv, args, ['devel', 'only', 'kernels', ...(ofCommand[String(args._[0])] ?? [])]);
    for (const [name, least] of Object.entries({
      trials: 1,
      seed: 1,
      'build-seconds': 1,
      'keep-runs': 1,
      'worker-wait': 1,
      retries: 0,
    })) {
      const value = args[name];
      const number = value as number;
      if (value !== undefined && !(Number.isInteger(number) && number >= least))
        throw new UsageError('bad-usage', `--${name}: must be a whole number of at least ${least}`);
    }
    if (
      args.confidence !== undefined &&
      !((args.confidence as number) > 0 && (args.confidence as number) < 1)
    )
      throw new UsageError('bad-usage', '--confidence: must be between 0 and 1, as 0.99');
    if (typeof args.at === 'string' && !/^([01]\d|2[0-3]):[0-5]\d$/.test(args.at))
      throw new UsageError('bad-usage', `--at ${args.at}: must be a time, as 02:30`);
    return true;
  })
  .fail((message, error) => {
    if (error && error.name !== 'YError') throw error;
    throw new UsageError('bad-usage', `${plain(message ?? error?.message)} (see loopanic --help)`);
  });

/** One line of what yargs complains about. */
function plain(complaint: string): string {
  const [, name, given, choices] = /Argument: (\S+), Given: "?(.*?)"?, Choices: (.*)/.exec(complaint) ?? [];
  if (name !== undefined) return `--${name} ${given}: choose one of ${choices?.replaceAll('"', '')}`;
  const [, lacking] = /^Not enough arguments following: (\S+)/.exec(complaint) ?? [];
  if (lacking !== undefined) return `--${lacking}: needs a value`;
  const options = argv.findIndex((word) => word.startsWith('-'));
  const typed = argv.slice(0, options < 0 ? 2 : Math.min(2, options));
  const [, unknown] = /^Unknown argument: (\S+)$/.exec(complaint) ?? [];
  if (unknown !== undefined && unknown === typed[0]) return `unknown command ${unknown}`;
  if (complaint.startsWith('Not enough non-option arguments'))
    return `${typed[0] ?? 'loopanic'}: an argument is missing: loopanic ${typed.join(' ')} --help names it`;
  const said = complaint.startsWith('Did you mean')
    ? `unknown command ${typed.join(' ')}. ${complaint}`
    : complaint;
  return said.replace(/\s*\n\s*/g, ' ');
}

try {
  await parser.parseAsync();
} catch (error) {
  ending.exitCode = tell(error);
}
await cleanedUp();
// A pipe takes 64 KiB at a time: what is left of a document goes with the process.
for (const stream of [process.stdout, process.stderr])
  await new Promise<void>((resolve) => stream.write('', () => resolve()));
process.exit(ending.exitCode);
