import { CONTROL_BOOTS } from '../../verdict/boots.js';
import { doesOwnCleanup } from '../act.js';
import type { Cli } from '../options.js';
import { anyImage, buildOptions, dump, gitTree, kernel, oneEach, retries, trials } from '../options.js';

/** Registers `loopanic bisect`. */
export function bisectCommand(y: Cli): Cli {
  return y.command(
    'bisect',
    'the first kernel of an ordered list that panics, or the first commit of a git range whose module does',
    (y) =>
      buildOptions(y)
        .option('good', { type: 'string', describe: 'kernel that is clean; with --git: commit' })
        .option('bad', { type: 'string', describe: 'kernel that panics; with --git: commit' })
        .option('git', gitTree)
        .option('kernel', { ...kernel, describe: 'with --git: the kernel that the modules are built for' })
        .option('kernels', {
          ...oneEach,
          default: [] as string[],
          describe: 'the list (repeat, in order); default: by version, what the catalogue and this host have',
        })
        .option('module', { type: 'string', default: 'stock', describe: 'module id' })
        .option('control', {
          type: 'string',
          default: 'unpatched',
          describe: 'module that must panic on a kernel before it counts as good',
        })
        .option('scenario', { type: 'string', default: 'xfs-loopback', describe: 'name or YAML file' })
        .option('image', anyImage)
        .option('confidence', {
          type: 'number',
          default: 0.95,
          describe: 'of the whole search; it is shared out among its steps',
        })
        .option('trials', {
          ...trials,
          default: CONTROL_BOOTS,
          describe: "boots of a kernel's positive control",
        })
        .option('retries', retries)
        .option('dump', dump),
    doesOwnCleanup(async () => (await import('../actions/bisect.js')).bisect),
  ) as Cli;
}
