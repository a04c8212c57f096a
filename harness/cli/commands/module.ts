import { does, doesOwnCleanup } from '../act.js';
import type { Cli } from '../options.js';
import { bug, buildOptions, kernel, oneEach } from '../options.js';

/** Registers `loopanic module`. */
export function moduleCommand(y: Cli): Cli {
  return y.command('module', 'what stands in for the module with the gate', (y) =>
    y
      .command(
        'ls',
        'what can stand in for each module of the family',
        (z) => z,
        does(async () => (await import('../actions/module.js')).moduleList),
      )
      .command(
        'build [names..]',
        'build variants (all, if none is named) for a kernel, or a module of your own under a name',
        (z) =>
          buildOptions(z)
            .positional('names', { type: 'string', array: true, default: [] as string[] })
            .option('kernel', kernel)
            .option('bug', bug)
            .option('patch', {
              ...oneEach,
              default: [] as string[],
              describe:
                "changes the kernel's own source of the module; paths as git writes them (repeat, in order)",
            })
            .option('source', {
              type: 'string',
              describe: "folder with the module's source, or a kernel tree",
            })
            .option('ko', { type: 'string', describe: 'a .ko that is built already' })
            .option('name', {
              type: 'string',
              describe: 'what to call it; run and validate take it as --module',
            }),
        doesOwnCleanup(async () => (await import('../actions/module.js')).moduleBuild),
      )
      .demandCommand(1, 'module: which command? ls or build'),
  ) as Cli;
}
