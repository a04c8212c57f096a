import { join } from 'node:path';
import { scenariosDir } from '../../base/paths.js';
import { CONTROL_BOOTS, DEFAULT_CONFIDENCE } from '../../verdict/boots.js';
import { does } from '../act.js';
import type { Cli } from '../options.js';
import { trials } from '../options.js';

/** Registers `loopanic nightly-unit`. */
export function nightlyUnitCommand(y: Cli): Cli {
  return y.command(
    'nightly-unit [file]',
    'prints a systemd service and timer and a cron line for a nightly matrix, or a job for GitHub Actions or GitLab',
    (y) =>
      y
        .positional('file', {
          type: 'string',
          default: join(scenariosDir, 'nightly.matrix.yaml'),
          describe: 'matrix file',
        })
        .option('for', {
          choices: ['systemd', 'github', 'gitlab'] as const,
          default: 'systemd' as const,
          describe: 'systemd: service, timer and cron line for this checkout, user and caches; else a CI job',
        })
        .option('at', {
          type: 'string',
          default: '02:30',
          describe: 'HH:MM, local time (github: UTC; gitlab: its schedule has the time)',
        })
        .option('confidence', {
          type: 'number',
          default: DEFAULT_CONFIDENCE,
          describe: 'as matrix --confidence',
        })
        .option('trials', { ...trials, default: CONTROL_BOOTS, describe: 'boots of each positive control' })
        .option('shards', {
          type: 'number',
          default: 1,
          describe:
            'machines that share a night (github, gitlab): a job for each, and one that merges their runs',
        })
        .option('keep-runs', {
          type: 'number',
          default: 30,
          describe: 'finished runs of this matrix that stay (systemd and cron)',
        }),
    does(async () => (await import('../actions/nightly.js')).nightlyUnit),
  ) as Cli;
}
