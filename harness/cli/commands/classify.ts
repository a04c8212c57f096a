import { does } from '../act.js';
import type { Cli } from '../options.js';
import { receiver } from '../options.js';

/** Registers `loopanic classify`. */
export function classifyCommand(y: Cli): Cli {
  return y.command(
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
    does(async () => (await import('../actions/classify.js')).classify),
  ) as Cli;
}
