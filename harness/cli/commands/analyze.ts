import { doesOwnCleanup } from '../act.js';
import type { Cli } from '../options.js';
import { bug, receiver } from '../options.js';

/** Registers `loopanic analyze`. */
export function analyzeCommand(y: Cli): Cli {
  return y.command(
    'analyze <vmcore>',
    "the article's walk through a dump: whose memory was read, and why that panicked",
    (y) =>
      y
        .positional('vmcore', { type: 'string', demandOption: true })
        .option('vmlinux', {
          type: 'string',
          demandOption: true,
          describe: 'the same build, with debug info (loopanic kernel debuginfo)',
        })
        .option('modules', { type: 'string', describe: 'folder of modules with debug info' })
        .option('bug', bug)
        .option('receiver', receiver)
        .option('output', { type: 'string', describe: 'folder for analysis.json and analysis.md' }),
    doesOwnCleanup(async () => (await import('../actions/analyze.js')).analyze),
  ) as Cli;
}
