import { does } from '../act.js';
import type { Cli } from '../options.js';

/** Registers `loopanic doctor`. */
export function doctorCommand(y: Cli): Cli {
  return y.command(
    'doctor',
    'what this host can do, and how to mend what is missing',
    (y) => y,
    does(async () => (await import('../actions/doctor.js')).doctor),
  ) as Cli;
}
