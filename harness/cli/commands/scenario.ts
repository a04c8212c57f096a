import { does } from '../act.js';
import type { Cli } from '../options.js';

/** Registers `loopanic scenario`. */
export function scenarioCommand(y: Cli): Cli {
  return y.command('scenario', 'scenarios', (y) =>
    y
      .command(
        'ls',
        'scenarios that come with loopanic',
        (z) => z,
        does(async () => (await import('../actions/scenario.js')).scenarioList),
      )
      .command(
        'show <name>',
        'a scenario with all defaults filled in',
        (z) => z.positional('name', { type: 'string', demandOption: true }),
        does(async () => (await import('../actions/scenario.js')).scenarioShow),
      )
      .demandCommand(1, 'scenario: which command? ls or show'),
  ) as Cli;
}
