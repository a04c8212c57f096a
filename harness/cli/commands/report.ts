import { REPORT_FORMATS } from '../../report/formats.js';
import { does, doesOwnCleanup } from '../act.js';
import type { Cli } from '../options.js';
import { buildOptions, expectationOk } from '../options.js';

/** Registers `loopanic report`. */
export function reportCommand(y: Cli): Cli {
  return y.command(
    'report <run>',
    'a run as an HTML page, JUnit, TAP, Markdown, a KCIDB submission or JSON',
    (y) =>
      y
        .positional('run', {
          type: 'string',
          demandOption: true,
          describe: 'its id, the end of it, its folder, or latest',
        })
        .option('format', { choices: REPORT_FORMATS, default: 'html' as const })
        .option('output', {
          type: 'string',
          describe: "file; default: report.html in the run's folder, all else stdout",
        })
        .option('expectation-ok', expectationOk),
    does(async () => (await import('../actions/report.js')).report),
  ) as Cli;
}

/** Registers `loopanic merge`. */
export function mergeCommand(y: Cli): Cli {
  return y.command(
    'merge <runs..>',
    'one run of several: the shards of a matrix (matrix --shard 1/3, 2/3, 3/3), with one report',
    (y) => y.positional('runs', { type: 'string', array: true, demandOption: true }),
    does(async () => (await import('../actions/merge.js')).merge),
  ) as Cli;
}

/** Registers `loopanic bundle`. */
export function bundleCommand(y: Cli): Cli {
  return y.command(
    'bundle <run> <cell> [trial]',
    'one boot as an archive that repeats it with QEMU alone: kernel, initramfs, LUN, logs, analysis, hashes and sources',
    (y) =>
      buildOptions(y)
        .positional('run', { type: 'string', demandOption: true, describe: 'as report takes it' })
        .positional('cell', {
          type: 'string',
          demandOption: true,
          describe: 'kernel+module+scenario, or a part of it that no other cell has',
        })
        .positional('trial', { type: 'number', default: 1, describe: 'its number' })
        .option('output', { type: 'string', describe: 'file; default: named after the trial, here' }),
    doesOwnCleanup(async () => (await import('../actions/bundle.js')).bundle),
  ) as Cli;
}

/** Registers `loopanic history`. */
export function historyCommand(y: Cli): Cli {
  return y.command(
    'history',
    'what became of every cell, night by night: pages below the results folder',
    (y) => y,
    does(async () => (await import('../actions/history.js')).history),
  ) as Cli;
}

/** Registers `loopanic compare`. */
export function compareCommand(y: Cli): Cli {
  return y.command(
    'compare <before> <after>',
    'what changed from one run to another; exit 1 if somebody has to look (another verdict, a new contradiction, a lost cell), 3 if a run is not whole',
    (y) =>
      y
        .positional('before', { type: 'string', demandOption: true })
        .positional('after', { type: 'string', demandOption: true }),
    does(async () => (await import('../actions/report.js')).compare),
  ) as Cli;
}
