import { CONTROL_BOOTS } from '../../verdict/boots.js';
import { doesOwnCleanup } from '../act.js';
import type { Cli } from '../options.js';
import {
  anyImage,
  buildOptions,
  dump,
  expectationOk,
  jobs,
  keepDumps,
  oneEach,
  retries,
} from '../options.js';

/** Registers `loopanic matrix`. */
export function matrixCommand(y: Cli): Cli {
  return y.command(
    'matrix <file>',
    'every cell of a matrix file, against its expectations',
    (y) =>
      buildOptions(y)
        .positional('file', {
          type: 'string',
          demandOption: true,
          describe: 'its name, or a YAML file; ls: those that come with loopanic',
        })
        .option('kernel', { ...oneEach, default: [] as string[], describe: 'only this kernel (repeat)' })
        .option('only', {
          ...oneEach,
          default: [] as string[],
          describe:
            'only cells whose kernel+module+scenario this glob matches (repeat); their controls come along',
        })
        .option('list', { type: 'boolean', default: false, describe: 'the plan: cells, boots, time, disk' })
        .option('shard', {
          type: 'string',
          describe:
            'only this part of the cells, each with its control: 2/5 is the second of five (then: loopanic merge)',
        })
        .option('resume', { type: 'string', describe: 'go on with a run that was interrupted (its id)' })
        .option('confidence', {
          type: 'number',
          describe:
            'asks for boots until at most 1 - N of such runs call a module clean that is as bad as its control; default: one boot whose reading of the gate is proof, or 0.99 where it cannot be read',
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
        .option('jobs', jobs('cells that are run at a time; default 1'))
        .option('queue', {
          type: 'string',
          describe:
            'have the trials run by the workers of this Redis (loopanic worker): redis://HOST, or @FILE that holds it',
        })
        .option('listen', {
          type: 'string',
          describe:
            'with --queue: address at which workers reach this run, HOST or HOST:PORT; default, with a Redis on this host: 127.0.0.1',
        })
        .option('label', { type: 'string', describe: 'with --queue: only workers that have this label' })
        .option('worker-wait', {
          type: 'number',
          describe: 'with --queue: seconds without any worker after which the run is given up; default 600',
        })
        .option('retries', retries)
        .option('seed', { type: 'number', describe: "repeats the trials' random choices" })
        .option('dump', dump)
        .option('keep-dumps', { ...keepDumps, default: 'first' as const }),
    doesOwnCleanup(async () => (await import('../actions/matrix.js')).matrix),
  ) as Cli;
}
