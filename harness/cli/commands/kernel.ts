import { does, doesOwnCleanup } from '../act.js';
import type { Cli } from '../options.js';
import { oneEach, verify } from '../options.js';

/** Registers `loopanic kernel`. */
export function kernelCommand(y: Cli): Cli {
  return y.command('kernel', 'kernels', (y) =>
    y
      .command(
        'ls',
        'the catalogue, and what of it is here',
        (z) => z,
        does(async () => (await import('../actions/kernel.js')).kernelList),
      )
      .command(
        'fetch <id>',
        "download a kernel of the catalogue (Debian's newest version, or the RPMs that the entry names), or build one of those that are built",
        (z) => z.positional('id', { type: 'string', demandOption: true }).option('verify', verify),
        doesOwnCleanup(async () => (await import('../actions/kernel.js')).kernelFetch),
      )
      .command(
        'add <files..>',
        'a kernel on disk: RPMs, .debs, or the directory of a build',
        (z) =>
          z
            .positional('files', { type: 'string', array: true, demandOption: true })
            .option('devel', {
              ...oneEach,
              default: [] as string[],
              describe:
                'what modules are built against: kernel-devel RPM, header .debs (repeat), or a build directory',
            })
            .option('source', {
              type: 'string',
              describe: 'source RPM, linux-source .deb, tar archive, or directory',
            })
            .option('debuginfo', {
              type: 'string',
              describe: 'kernel-debuginfo RPM, -dbg .deb, or a vmlinux',
            })
            .option('id', {
              type: 'string',
              describe: "name to give it; default: the catalogue's name for its release, or the release",
            })
            .option('key', { type: 'string', describe: 'public key that every RPM must be signed with' })
            .option('verify', verify)
            .option('force', {
              type: 'boolean',
              default: false,
              describe: 'take it even if it cannot show the bug',
            }),
        does(async () => (await import('../actions/kernel.js')).kernelAdd),
      )
      .command(
        'build',
        'a Debian kernel built anew with a patch to its core (slow: a quarter of an hour on two cores)',
        (z) =>
          z
            .option('from', {
              type: 'string',
              default: 'debian-6.1',
              describe: 'kernel whose source and configuration are used',
            })
            .option('patch', { ...oneEach, default: [] as string[], describe: 'patch to apply (repeat)' })
            .option('id', { type: 'string', describe: 'name to give it; default: from its patches' }),
        doesOwnCleanup(async () => (await import('../actions/kernel.js')).kernelBuild),
      )
      .command(
        'rm <id>',
        'remove a kernel from this host',
        (z) => z.positional('id', { type: 'string', demandOption: true }),
        does(async () => (await import('../actions/kernel.js')).kernelRemove),
      )
      .command(
        'debuginfo <id>',
        'bring vmlinux with debug info, for analyses',
        (z) => z.positional('id', { type: 'string', demandOption: true }),
        does(async () => (await import('../actions/kernel.js')).kernelDebugInfo),
      )
      .demandCommand(1, 'kernel: which command? ls, fetch, add, build, debuginfo or rm'),
  ) as Cli;
}
