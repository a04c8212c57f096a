import { does } from '../act.js';
import type { Cli } from '../options.js';

/** Registers `loopanic image`. */
export function imageCommand(y: Cli): Cli {
  return y.command('image', 'guest images', (y) =>
    y
      .command(
        'ls',
        'images, and which are built',
        (z) => z,
        does(async () => (await import('../actions/image.js')).imageList),
      )
      .command(
        'build [name]',
        'build an image anew',
        (z) => z.positional('name', { type: 'string', default: 'minimal' }),
        does(async () => (await import('../actions/image.js')).imageBuild),
      )
      .demandCommand(1, 'image: which command? ls or build'),
  ) as Cli;
}
