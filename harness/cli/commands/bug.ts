import { does } from '../act.js';
import type { Cli } from '../options.js';

/** Registers `loopanic bug`. */
export function bugCommand(y: Cli): Cli {
  return y.command('bug', 'the family of bugs', (y) =>
    y
      .command(
        'ls',
        'all of them',
        (z) => z,
        does(async () => (await import('../actions/bug.js')).bugList),
      )
      .command(
        'show <id>',
        'its gate, what is sought, who may read, and its scenarios',
        (z) => z.positional('id', { type: 'string', demandOption: true }),
        does(async () => (await import('../actions/bug.js')).bugShow),
      )
      .demandCommand(1, 'bug: which command? ls or show'),
  ) as Cli;
}
