import { does } from '../act.js';
import type { Cli } from '../options.js';

/** Registers `loopanic clean`. */
export function cleanCommand(y: Cli): Cli {
  return y.command(
    'clean',
    'remove leftovers of dead runs; --cache for the caches, but kernels and modules of your own stay (kernel rm)',
    (y) =>
      y.option('cache', { type: 'boolean', default: false, describe: 'everything fetched and built, too' }),
    does(async () => (await import('../actions/clean.js')).clean),
  ) as Cli;
}
