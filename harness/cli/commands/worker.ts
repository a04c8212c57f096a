import { doesOwnCleanup } from '../act.js';
import type { Cli } from '../options.js';
import { jobs } from '../options.js';

/** Registers `loopanic worker`. */
export function workerCommand(y: Cli): Cli {
  return y.command(
    'worker',
    'runs trials for matrix --queue, until it is ended',
    (y) =>
      y
        .option('queue', {
          type: 'string',
          demandOption: true,
          describe:
            'the Redis that runs hand their trials out through: redis://[:PASSWORD@]HOST, rediss:// with TLS, or @FILE that holds it',
        })
        .option('jobs', { ...jobs('trials at a time'), default: 'auto' })
        .option('labels', {
          type: 'string',
          describe: 'serves runs with one of these labels (matrix --label), too: big,lab',
        }),
    doesOwnCleanup(async () => (await import('../actions/worker.js')).worker),
  ) as Cli;
}
