import { CONTROL_BOOTS } from '../../verdict/boots.js';
import { doesOwnCleanup } from '../act.js';
import type { Cli } from '../options.js';
import {
  anyImage,
  buildOptions,
  dump,
  gitRev,
  gitTree,
  keepDumps,
  kernel,
  retries,
  trials,
} from '../options.js';

/** Registers `loopanic validate`. */
export function validateCommand(y: Cli): Cli {
  return y.command(
    'validate',
    'is this module a fix? the positive control, then the module, until there is proof',
    (y) =>
      buildOptions(y)
        .option('kernel', kernel)
        .option('module', {
          type: 'string',
          describe:
            'module id (loopanic module ls), name (module build --name), or path of a .ko or a .patch',
        })
        .option('control', {
          type: 'string',
          describe: 'module that must panic; default: unpatched, or stock where that cannot be built',
        })
        .option('git', gitTree)
        .option('rev', gitRev)
        .option('build-kernel', {
          type: 'boolean',
          default: false,
          describe:
            'build a kernel with the patches, whatever they change, and the same without, and validate on these (a quarter of an hour each, once)',
        })
        .option('all-bugs', {
          type: 'boolean',
          default: false,
          describe: "every scenario of the family that shows a bug of this module, not only --scenario's",
        })
        .option('format', {
          choices: ['text', 'md'] as const,
          default: 'text' as const,
          describe: 'md: the answer for a mail or a merge request',
        })
        .option('scenario', { type: 'string', default: 'xfs-loopback', describe: 'name or YAML file' })
        .option('confidence', {
          type: 'number',
          describe:
            'asks for boots until at most 1 - N of such validations call a module clean that is as bad as the control; default: one boot whose reading of the gate is proof, or 0.99 where it cannot be read',
        })
        .option('image', anyImage)
        .option('trials', {
          ...trials,
          default: CONTROL_BOOTS,
          describe: 'boots of the positive control, at most',
        })
        .option('retries', retries)
        .option('dump', dump)
        .option('keep-dumps', { ...keepDumps, default: 'first' as const })
        .option('seed', { type: 'number', describe: "repeats the trials' random choices" }),
    doesOwnCleanup(async () => (await import('../actions/validate.js')).validate),
  ) as Cli;
}
