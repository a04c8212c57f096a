import { does } from '../act.js';
import type { Cli } from '../options.js';
import { image, kernel } from '../options.js';

/** Registers `loopanic setup`. */
export function setupCommand(y: Cli): Cli {
  return y.command(
    'setup',
    'install missing host packages, fetch the default kernel, build the default image; safe to repeat',
    (y) =>
      y
        .option('kernel', kernel)
        .option('image', image)
        .option('tests', { type: 'boolean', default: false, describe: "also what loopanic's own tests use" }),
    does(async () => (await import('../actions/setup.js')).setup),
  ) as Cli;
}
