#!/usr/bin/env node
import { setMaxListeners } from 'node:events';
import { join } from 'node:path';
import yargs from 'yargs';
import { hideBin } from 'yargs/helpers';
import { cleanedUp } from '../base/cleanup.js';
import {
  EXIT,
  firstLine,
  InterruptedError,
  interruptible,
  LoopanicError,
  UsageError,
} from '../base/errors.js';
import { scenariosDir } from '../base/paths.js';
import { DEFAULT_BUG } from '../bug/family.js';
import { REPORT_FORMATS } from '../report/report.js';
import { CONTROL_BOOTS, DEFAULT_CONFIDENCE } from '../verdict/cell-verdict.js';
import { analyze } from './commands/analyze.js';
import { bisect } from './commands/bisect.js';
import { bugList, bugShow } from './commands/bug.js';
import { classify } from './commands/classify.js';
import { clean } from './commands/clean.js';
import { doctor } from './commands/doctor.js';
import { imageBuild, imageList } from './commands/image.js';
import {
  kernelAdd,
  kernelBuild,
  kernelDebugInfo,
  kernelFetch,
  kernelList,
  kernelRemove,
} from './commands/kernel.js';
import { matrix } from './commands/matrix.js';
import { moduleBuild, moduleList } from './commands/module.js';
import { nightlyUnit } from './commands/nightly.js';
import { compare, report } from './commands/report.js';
import { run } from './commands/run.js';
import { scenarioList, scenarioShow } from './commands/scenario.js';
import { setup } from './commands/setup.js';
import { validate } from './commands/validate.js';
import { buildOptions, type Context, globalOptions, STDIN } from './context.js';
import { refuseRepeated } from './given-twice.js';

const abort = new AbortController();
// As many guests as there are jobs listen to it.
setMaxListeners(0, abort.signal);
const context: Context = { signal: abort.signal };
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  process.on(name, () => {
    // A second signal does not wait for the clean-up; QEMU dies with this process in any case.
    if (abort.signal.aborted) process.exit(EXIT.interrupted);
    abort.abort(new InterruptedError());
  });

// yargs makes an empty string of a lone dash.
const argv = hideBin(process.argv).map((word) => (word === '-' ? STDIN : word));
let exitCode: number = EXIT.ok;
// Commands that run trials end them and save what is known; all others are simply left.
const doesOwnCleanup = <A>(action: (args: A, context: Context) => Promise<number>) => {
  return async (args: A): Promise<void> => {
    exitCode = await action(args, context);
  };
};
const does = <A>(action: (args: A) => Promise<number>) =>
  doesOwnCleanup((args: A, { signal }) => interruptible(action(args), signal));

/** Tells an error in one line (with --verbose its trace) and returns the exit code that it means. */
function tell(error: unknown): number {
  const known = error instanceof LoopanicError;
  // The system's own refusals (disk full, no permission) need no trace either.
  const system = error instanceof Error && 'syscall' in error && 'code' in error;
  const verbose = process.argv.includes('--verbose');
  process.stderr.write(`loopanic: ${known || system ? '' : 'internal error: '}${firstLine(error)}\n`);
  if ((verbose || !(known || system)) && error instanceof Error) process.stderr.write(`${error.stack}\n`);
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

const kernel = { type: 'string', default: 'debian-6.1', describe: 'kernel id (loopanic kernel ls)' } as const;
const bug = {
  type: 'string',
  default: DEFAULT_BUG,
  describe: 'bug of the family (loopanic bug ls)',
} as const;
const receiver = {
  type: 'string',
  describe: "Comm of the task that was to read; default: those of the bug's targets",
} as const;
const image = { type: 'string', default: 'minimal', describe: 'guest image (loopanic image ls)' } as const;
const anyImage = {
  type: 'string',
  describe: "guest image (loopanic image ls); default: the scenario's, or minimal",
} as const;
const dump = {
  choices: ['kdump', 'qmp', 'none'] as const,
  default: 'kdump' as const,
  describe: 'how a crash is captured; kdump falls back to qmp',
} as const;
const keepDumps = {
  choices: ['all', 'first', 'none'] as const,
  describe: 'which vmcores stay: all, the first of each cell, none (analyses always stay)',
} as const;
const verify = {
  type: 'boolean',
  default: true,
  describe: 'check packages; --no-verify takes them as they are',
} as const;
const oneEach = { type: 'string', array: true, nargs: 1 } as const;
const retries = {
  type: 'number',
  default: 2,
  describe: 'trials of a cell that may fail around the guest (infra-error, no-boot) and are tried again',
} as const;
const trials = { type: 'number', default: 1, describe: 'boots of each cell' } as const;
const expectationOk = {
  type: 'boolean',
  default: true,
  describe: 'a panic needs an expectation, or it is a failure; --no-expectation-ok: it needs none',
} as const;

const parser = globalOptions(yargs(argv))
  .scriptName('loopanic')
  .usage(
    '$0 COMMAND\n\nReproduces the iSCSI-over-loopback usercopy panic and says which kernels and modules still have it.',
  )
  .command('doctor', 'what this host can do, and how to mend what is missing', (y) => y, does(doctor))
  .command(
    'setup',
    'install missing host packages, fetch the default kernel, build the default image; safe to repeat',
    (y) =>
      y
        .option('kernel', kernel)
        .option('image', image)
        .option('tests', { type: 'boolean', default: false, describe: "also what loopanic's own tests use" }),
    does(setup),
  )
  .command(
    'run <scenario>',
    'one cell, by hand',
    (y) =>
      buildOptions(y)
        .positional('scenario', {
          type: 'string',
          demandOption: true,
          describe: 'name (loopanic scenario ls) or YAML file',
        })
        .option('kernel', kernel)
        .option('module', {
          type: 'string',
          default: 'stock',
          describe: 'module id (loopanic module ls) or path of a .ko or a .patch',
        })
        .option('image', anyImage)
        .option('trials', trials)
        .option('dump', dump)
        .option('keep-dumps', { ...keepDumps, default: 'all' as const })
        .option('seed', {
          type: 'number',
          describe: "repeats a trial's random choices (outcome.json has its seed)",
        })
        .option('hardened-usercopy', {
          choices: ['on', 'off'] as const,
          describe: "instead of the scenario's setting",
        })
        .option('keep', {
          type: 'boolean',
          default: false,
          describe: 'leave the guest up after its trial until you end it',
        })
        .option('shell', {
          type: 'boolean',
          default: false,
          describe: "an ssh shell in the guest, everything mounted; 'workload' there starts the trigger",
        })
        .option('console', {
          type: 'boolean',
          default: false,
          describe: 'show the serial console live, on stderr',
        })
        .option('bisect', {
          type: 'boolean',
          default: false,
          describe: 'exit codes of git bisect run: 0 clean, 1 panics, 125 no verdict',
        }),
    doesOwnCleanup(run),
  )
  .command(
    'validate',
    'is this module a fix? the positive control, then the module until the confidence is reached',
    (y) =>
      buildOptions(y)
        .option('kernel', kernel)
        .option('module', {
          type: 'string',
          demandOption: true,
          describe:
            'module id (loopanic module ls), name (module build --name), or path of a .ko or a .patch',
        })
        .option('control', {
          type: 'string',
          describe: 'module that must panic; default: unpatched, or stock where that cannot be built',
        })
        .option('scenario', { type: 'string', default: 'xfs-loopback', describe: 'name or YAML file' })
        .option('confidence', {
          type: 'number',
          default: DEFAULT_CONFIDENCE,
          describe: 'at most 1 - N of such validations call a module clean that is as bad as the control',
        })
        .option('image', anyImage)
        .option('trials', { ...trials, default: CONTROL_BOOTS, describe: 'boots of the positive control' })
        .option('retries', retries)
        .option('dump', dump)
        .option('keep-dumps', { ...keepDumps, default: 'first' as const })
        .option('seed', { type: 'number', describe: "repeats the trials' random choices" }),
    doesOwnCleanup(validate),
  )
  .command(
    'matrix <file>',
    'every cell of a matrix file, against its expectations',
    (y) =>
      buildOptions(y)
        .positional('file', { type: 'string', demandOption: true, describe: 'matrix file (YAML)' })
        .option('kernel', { ...oneEach, default: [] as string[], describe: 'only this kernel (repeat)' })
        .option('only', {
          ...oneEach,
          default: [] as string[],
          describe:
            'only cells whose kernel+module+scenario this glob matches (repeat); their controls come along',
        })
        .option('list', { type: 'boolean', default: false, describe: 'the plan: cells, boots, time, disk' })
        .option('resume', { type: 'string', describe: 'go on with a run that was interrupted (its id)' })
        .option('confidence', {
          type: 'number',
          describe:
            'of every clean: at most 1 - N of such runs call a module clean that is as bad as its control; default 0.99, or boots by number if only --trials is given',
        })
        .option('expectation-ok', expectationOk)
        .option('keep-runs', {
          type: 'number',
          describe: 'afterwards, remove all but so many finished runs of this matrix',
        })
        .option('image', anyImage)
        .option('trials', {
          type: 'number',
          describe: `boots of each control (default ${CONTROL_BOOTS}); without --confidence, of each cell`,
        })
        .option('jobs', { type: 'number', default: 1, describe: 'cells that are run at a time' })
        .option('retries', retries)
        .option('seed', { type: 'number', describe: "repeats the trials' random choices" })
        .option('dump', dump)
        .option('keep-dumps', { ...keepDumps, default: 'first' as const }),
    doesOwnCleanup(matrix),
  )
  .command(
    'bisect',
    'the first kernel of an ordered list that panics',
    (y) =>
      buildOptions(y)
        .option('good', { type: 'string', demandOption: true, describe: 'kernel that is clean' })
        .option('bad', { type: 'string', demandOption: true, describe: 'kernel that panics' })
        .option('kernels', {
          ...oneEach,
          default: [] as string[],
          describe: 'the list (repeat, in order); default: by version, what the catalogue and this host have',
        })
        .option('module', { type: 'string', default: 'stock', describe: 'module id' })
        .option('control', {
          type: 'string',
          default: 'unpatched',
          describe: 'module that must panic on a kernel before it counts as good',
        })
        .option('scenario', { type: 'string', default: 'xfs-loopback', describe: 'name or YAML file' })
        .option('image', anyImage)
        .option('confidence', {
          type: 'number',
          default: 0.95,
          describe: 'of the whole search; it is shared out among its steps',
        })
        .option('trials', {
          ...trials,
          default: CONTROL_BOOTS,
          describe: "boots of a kernel's positive control",
        })
        .option('retries', retries)
        .option('dump', dump),
    doesOwnCleanup(bisect),
  )
  .command(
    'nightly-unit [file]',
    'prints a systemd service and timer and a cron line for a nightly matrix, or a job for GitHub Actions or GitLab',
    (y) =>
      y
        .positional('file', {
          type: 'string',
          default: join(scenariosDir, 'nightly.matrix.yaml'),
          describe: 'matrix file',
        })
        .option('for', {
          choices: ['systemd', 'github', 'gitlab'] as const,
          default: 'systemd' as const,
          describe: 'systemd: service, timer and cron line for this checkout, user and caches; else a CI job',
        })
        .option('at', {
          type: 'string',
          default: '02:30',
          describe: 'HH:MM, local time (github: UTC; gitlab: its schedule has the time)',
        })
        .option('confidence', {
          type: 'number',
          default: DEFAULT_CONFIDENCE,
          describe: 'as matrix --confidence',
        })
        .option('trials', { ...trials, default: CONTROL_BOOTS, describe: 'boots of each positive control' })
        .option('keep-runs', {
          type: 'number',
          default: 30,
          describe: 'finished runs of this matrix that stay (systemd and cron)',
        }),
    does(nightlyUnit),
  )
  .command(
    'report <run>',
    'a run as an HTML page, JUnit, TAP, Markdown or JSON',
    (y) =>
      y
        .positional('run', { type: 'string', demandOption: true, describe: 'its id, or its folder' })
        .option('format', { choices: REPORT_FORMATS, default: 'html' as const })
        .option('output', {
          type: 'string',
          describe: "file; default: report.html in the run's folder, all else stdout",
        })
        .option('expectation-ok', expectationOk),
    does(report),
  )
  .command(
    'compare <before> <after>',
    'what changed from one run to another; exit 1 if somebody has to look (another verdict, a new contradiction, a lost cell), 3 if a run is not whole',
    (y) =>
      y
        .positional('before', { type: 'string', demandOption: true })
        .positional('after', { type: 'string', demandOption: true }),
    does(compare),
  )
  .command(
    'classify <log>',
    'outcome and signature of a serial log or vmcore-dmesg text from anywhere; - reads stdin',
    (y) =>
      y
        .positional('log', { type: 'string', demandOption: true })
        .option('bug', {
          type: 'string',
          describe: 'look for this one only; default: any of the family (bug ls)',
        })
        .option('receiver', receiver),
    does(classify),
  )
  .command(
    'analyze <vmcore>',
    "the article's walk through a dump: whose memory was read, and why that panicked",
    (y) =>
      y
        .positional('vmcore', { type: 'string', demandOption: true })
        .option('vmlinux', {
          type: 'string',
          demandOption: true,
          describe: 'the same build, with debug info (loopanic kernel debuginfo)',
        })
        .option('modules', { type: 'string', describe: 'folder of modules with debug info' })
        .option('bug', bug)
        .option('receiver', receiver)
        .option('output', { type: 'string', describe: 'folder for analysis.json and analysis.md' }),
    doesOwnCleanup(analyze),
  )
  .command('kernel', 'kernels', (y) =>
    y
      .command('ls', 'the catalogue, and what of it is here', (z) => z, does(kernelList))
      .command(
        'fetch <id>',
        "download a kernel of the catalogue (Debian's newest version, or the RPMs that the entry names), or build one of those that are built",
        (z) => z.positional('id', { type: 'string', demandOption: true }).option('verify', verify),
        doesOwnCleanup(kernelFetch),
      )
      .command(
        'add <files..>',
        'a kernel on disk: RPMs, .debs, or the directory of a build',
        (z) =>
          z
            .positional('files', { type: 'string', array: true, demandOption: true })
            .option('devel', {
              ...oneEach,
              default: [] as string[],
              describe:
                'what modules are built against: kernel-devel RPM, header .debs (repeat), or a build directory',
            })
            .option('source', {
              type: 'string',
              describe: 'source RPM, linux-source .deb, tar archive, or directory',
            })
            .option('debuginfo', {
              type: 'string',
              describe: 'kernel-debuginfo RPM, -dbg .deb, or a vmlinux',
            })
            .option('id', {
              type: 'string',
              describe: "name to give it; default: the catalogue's name for its release, or the release",
            })
            .option('key', { type: 'string', describe: 'public key that every RPM must be signed with' })
            .option('verify', verify)
            .option('force', {
              type: 'boolean',
              default: false,
              describe: 'take it even if it cannot show the bug',
            }),
        does(kernelAdd),
      )
      .command(
        'build',
        'a Debian kernel built anew with a patch to its core (slow: a quarter of an hour on two cores)',
        (z) =>
          z
            .option('from', {
              type: 'string',
              default: 'debian-6.1',
              describe: 'kernel whose source and configuration are used',
            })
            .option('patch', { ...oneEach, default: [] as string[], describe: 'patch to apply (repeat)' })
            .option('id', { type: 'string', describe: 'name to give it; default: from its patches' }),
        doesOwnCleanup(kernelBuild),
      )
      .command(
        'rm <id>',
        'remove a kernel from this host',
        (z) => z.positional('id', { type: 'string', demandOption: true }),
        does(kernelRemove),
      )
      .command(
        'debuginfo <id>',
        'bring vmlinux with debug info, for analyses',
        (z) => z.positional('id', { type: 'string', demandOption: true }),
        does(kernelDebugInfo),
      )
      .demandCommand(1, 'kernel: which command? ls, fetch, add, build, debuginfo or rm'),
  )
  .command('bug', 'the family of bugs', (y) =>
    y
      .command('ls', 'all of them', (z) => z, does(bugList))
      .command(
        'show <id>',
        'its gate, what is sought, who may read, and its scenarios',
        (z) => z.positional('id', { type: 'string', demandOption: true }),
        does(bugShow),
      )
      .demandCommand(1, 'bug: which command? ls or show'),
  )
  .command('module', 'what stands in for the module with the gate', (y) =>
    y
      .command('ls', 'what can stand in for each module of the family', (z) => z, does(moduleList))
      .command(
        'build [names..]',
        'build variants (all, if none is named) for a kernel, or a module of your own under a name',
        (z) =>
          buildOptions(z)
            .positional('names', { type: 'string', array: true, default: [] as string[] })
            .option('kernel', kernel)
            .option('bug', bug)
            .option('patch', {
              ...oneEach,
              default: [] as string[],
              describe:
                "changes the kernel's own source of the module; paths as git writes them (repeat, in order)",
            })
            .option('source', {
              type: 'string',
              describe: "folder with the module's source, or a kernel tree",
            })
            .option('ko', { type: 'string', describe: 'a .ko that is built already' })
            .option('name', {
              type: 'string',
              describe: 'what to call it; run and validate take it as --module',
            }),
        doesOwnCleanup(moduleBuild),
      )
      .demandCommand(1, 'module: which command? ls or build'),
  )
  .command('image', 'guest images', (y) =>
    y
      .command('ls', 'images, and which are built', (z) => z, does(imageList))
      .command(
        'build [name]',
        'build an image anew',
        (z) => z.positional('name', { type: 'string', default: 'minimal' }),
        does(imageBuild),
      )
      .demandCommand(1, 'image: which command? ls or build'),
  )
  .command('scenario', 'scenarios', (y) =>
    y
      .command('ls', 'scenarios that come with loopanic', (z) => z, does(scenarioList))
      .command(
        'show <name>',
        'a scenario with all defaults filled in',
        (z) => z.positional('name', { type: 'string', demandOption: true }),
        does(scenarioShow),
      )
      .demandCommand(1, 'scenario: which command? ls or show'),
  )
  .command(
    'clean',
    'remove leftovers of dead runs; --cache for the caches, but kernels and modules of your own stay (kernel rm)',
    (y) =>
      y.option('cache', { type: 'boolean', default: false, describe: 'everything fetched and built, too' }),
    does(clean),
  )
  .demandCommand(1, 'which command?')
  .strict()
  .recommendCommands()
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
      jobs: 1,
      seed: 1,
      'build-seconds': 1,
      'keep-runs': 1,
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
  const said = complaint.startsWith('Did you mean') ? `unknown command. ${complaint}` : complaint;
  return said.replace(/\s*\n\s*/g, ' ');
}

try {
  await parser.parseAsync();
} catch (error) {
  exitCode = tell(error);
}
await cleanedUp();
process.exit(exitCode);
