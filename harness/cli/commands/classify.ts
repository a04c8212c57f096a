import { does } from '../act.js';
import type { Cli } from '../options.js';
import { receiver } from '../options.js';

/** Registers `loopanic classify`. */
export function classifyCommand(y: Cli): Cli {
  return y.command(
    'classify <logs..>',
    'outcome and signature of serial logs or vmcore-dmesg texts from anywhere: files, folders, patterns; - reads stdin',
    (y) =>
      y
        .positional('logs', { type: 'string', array: true, demandOption: true })
        .option('exit-code', {
          type: 'boolean',
          default: false,
          describe: '0: no crash, 1: the sought one, 3: another crash',
        })
        .option('bug', {
          type: 'string',
          describe: 'look for this one only; default: any of the family (bug ls)',
        })
        .option('receiver', receiver),
    does(async () => (await import('../actions/classify.js')).classify),
  ) as Cli;
}
