import { doesOwnCleanup } from '../act.js';
import type { Cli } from '../options.js';
import { anyImage, buildOptions, dump, keepDumps, kernel, trials } from '../options.js';

/** Registers `loopanic run`. */
export function runCommand(y: Cli): Cli {
  return y.command(
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
        .option('probe', {
          type: 'boolean',
          default: true,
          describe: 'a probe in the guest reads the gate; --no-probe: without it',
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
          describe: 'exit codes of git bisect run: 0 clean, 1 panics or exposed, 125 no verdict',
        }),
    doesOwnCleanup(async () => (await import('../actions/run.js')).run),
  ) as Cli;
}
