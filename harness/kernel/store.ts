import { copyFile, mkdir, readdir, readFile, realpath, rename, rm, symlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { InfraError, UsageError } from '../base/errors.js';
import { exists, writeFileAtomic, writeJson } from '../base/files.js';
import { cacheDir } from '../base/paths.js';
import { gateModules } from '../bug/family.js';
import { bounded } from '../host/bounded.js';
import { command, commandError, host } from '../host/command.js';
import { needProgram } from '../host/tools.js';
import { findFiles } from '../package/package-files.js';
import { type Kernel, type KernelRecord, kernelRecordSchema, stockModulePath } from './kernel.js';
import { readModule } from './module-file.js';
import { kernelProfile } from './profile.js';
import { writeUnpackedImage } from './unpack-image.js';
import { refuseOddities } from './untrusted-tree.js';

const kernelsDir = (...parts: string[]): string => cacheDir('kernels', ...parts);

/** Ids of all kernels on this host. */
export async function presentIds(): Promise<string[]> {
  return (await readdir(kernelsDir()).catch(() => [])).sort();
}

/** The kernel that was fetched or added last under this id, or null. */
export async function presentKernel(id: string): Promise<Kernel | null> {
  const current = await readFile(kernelsDir(id, 'current'), 'utf8').catch(() => null);
  if (current === null) return null;
  const key = current.trim();
  const dir = kernelsDir(id, key);
  const text = await readFile(join(dir, 'kernel.json'), 'utf8').catch(() => null);
  if (text === null) return null;
  const record = parseRecord(text);
  if (!record) return null;
  const vmlinux = join(dir, 'vmlinux-boot');
  const config = join(dir, 'boot', `config-${record.release}`);
  return {
    ...record,
    compiler: record.compiler ?? (await compilerOf(dir, record.release)),
    dir,
    key,
    vmlinuz: join(dir, 'boot', `vmlinuz-${record.release}`),
    vmlinux: (await exists(vmlinux)) ? vmlinux : null,
    config,
    modulesRoot: dir,
    profile: await kernelProfile(record.release, config),
  };
}

/** What compiled a kernel's own module, and so all of it. */
async function compilerOf(modulesRoot: string, release: string): Promise<string | null> {
  for (const module of gateModules()) {
    const stock = stockModulePath({ modulesRoot, release }, module);
    if (await exists(stock)) return (await readModule(stock)).compiler;
  }
  return null;
}

/** A record that was damaged counts as none. */
function parseRecord(text: string): KernelRecord | null {
  try {
    return kernelRecordSchema.parse(JSON.parse(text));
  } catch {
    return null;
  }
}

/** True if this build of a kernel is on this host. */
export function hasKernel(id: string, key: string): Promise<boolean> {
  return exists(kernelsDir(id, key, 'kernel.json'));
}

/** Makes a build that is on this host the one that its id means. */
export async function useKernel(id: string, key: string): Promise<Kernel> {
  await writeFileAtomic(kernelsDir(id, 'current'), `${key}\n`);
  const kernel = await presentKernel(id);
  if (!kernel) throw new InfraError('kernel-lost', `kernel ${id} vanished from the cache`);
  return kernel;
}

/**
 * Puts a kernel that `layOut` has made in `out` into the cache. It is there whole or not at all. Where the same build is there already,
 * what is new about it (debug info, who vouches for it) is added.
 */
export async function storeKernel(out: string, key: string, record: KernelRecord): Promise<Kernel> {
  await writeJson(join(out, 'kernel.json'), record);
  const dir = kernelsDir(record.id, key);
  await mkdir(dirname(dir), { recursive: true, mode: 0o700 });
  await rename(out, dir).catch(async (error: unknown) => {
    if (!(await hasKernel(record.id, key))) throw error;
    if (await exists(join(out, 'debug')))
      await rename(join(out, 'debug'), join(dir, 'debug')).catch(() => {});
    await writeJson(join(dir, 'kernel.json'), record);
  });
  return useKernel(record.id, key);
}

/** Removes every build of a kernel from this host. Throws UsageError if there is none. */
export async function removeKernel(id: string): Promise<void> {
  if (!(await presentIds()).includes(id))
    throw new UsageError('no-such-kernel', `kernel ${id} is not on this host`);
  await rm(kernelsDir(id), { recursive: true });
}

/**
 * Brings unpacked packages of any distribution into one layout: boot/vmlinuz-R, boot/config-R, lib/modules/R with plain .ko files and
 * fresh indexes, and vmlinux-boot if the kernel can be booted unpacked. Returns the release, and what compiled its modules.
 */
export async function layOut(
  root: string,
  source: string,
  update: (text: string) => void,
): Promise<Pick<KernelRecord, 'release' | 'compiler'>> {
  await refuseOddities(root, source);
  // Where /usr was merged, packages have their modules below it.
  if (!(await exists(join(root, 'lib/modules'))) && (await exists(join(root, 'usr/lib/modules')))) {
    await mkdir(join(root, 'lib'), { recursive: true });
    await rename(join(root, 'usr/lib/modules'), join(root, 'lib/modules'));
    // Its links lead elsewhere from there.
    await refuseOddities(root, source);
  }
  const release = await soleRelease(root, source);
  await mkdir(join(root, 'boot'), { recursive: true });
  // A link to the host's own folders would have them changed below.
  for (const place of ['boot', 'lib', 'lib/modules', join('lib/modules', release)])
    if ((await realpath(join(root, place))) !== join(await realpath(root), place))
      throw new UsageError('odd-kernel', `${source}: its ${place} is a link to elsewhere`);
  const tree = join(root, 'lib/modules', release);
  await settle(root, source, `vmlinuz-${release}`, [join(tree, 'vmlinuz'), join(root, 'boot/vmlinuz')]);
  await settle(root, source, `config-${release}`, [join(tree, 'config'), join(root, 'boot/config')]);
  await rm(join(root, 'usr'), { recursive: true, force: true });
  // Links into the build host's own tree.
  for (const name of ['build', 'source']) await rm(join(tree, name), { recursive: true, force: true });
  update('unpacking modules');
  await unpackModules(root);
  update('indexing modules');
  await command(await needProgram('depmod'), ['-b', root, release]);
  await writeUnpackedImage(join(root, 'boot', `vmlinuz-${release}`), join(root, 'vmlinux-boot'));
  return { release, compiler: await compilerOf(root, release) };
}

/** Sees to it that boot/NAME is there, from the first of `places` if it is not. */
async function settle(root: string, source: string, name: string, places: string[]): Promise<void> {
  const target = join(root, 'boot', name);
  if (await exists(target)) return;
  for (const place of places)
    if (await exists(place)) {
      await copyFile(place, target);
      return;
    }
  throw new UsageError(
    'incomplete-kernel',
    `${source}: there is no ${name.startsWith('config') ? 'configuration' : 'kernel image'} (boot/${name}) in it`,
  );
}

async function soleRelease(root: string, source: string): Promise<string> {
  const releases = await readdir(join(root, 'lib/modules')).catch(() => []);
  const [release] = releases;
  if (release === undefined || releases.length !== 1)
    throw new UsageError(
      'incomplete-kernel',
      `${source}: there must be one module tree (lib/modules/RELEASE), not ${releases.length || 'none'}`,
    );
  return release;
}

/** Modules are read by our own programs and by small guests: they are kept uncompressed. */
async function unpackModules(root: string): Promise<void> {
  for (const [suffix, program, args] of [
    ['xz', 'xz', ['-d']],
    ['zst', 'zstd', ['-dq', '--rm']],
    ['gz', 'gzip', ['-d']],
  ] as const) {
    const files = await findFiles(join(root, 'lib/modules'), new RegExp(`\\.ko\\.${suffix}$`));
    if (files.length === 0) continue;
    const path = await needProgram(program);
    const input = files.map((file) => `${file}\0`).join('');
    const cwd = join(root, 'lib/modules');
    await bounded(cwd, 'its modules', (cancelSignal) =>
      host('xargs', ['-0', path, ...args], { cwd, input, cancelSignal }).catch((error: unknown) => {
        throw commandError(program, error);
      }),
    );
  }
}

/** A link from a kernel's folder to a folder of the user's. */
export async function linkFolder(target: string, link: string): Promise<void> {
  await mkdir(dirname(link), { recursive: true });
  await symlink(target, link);
}

/** Those of `modules` that a laid-out kernel has neither as a file nor built in, dependencies included. */
export async function missingModules(
  root: string,
  release: string,
  modules: readonly string[],
): Promise<string[]> {
  const modprobe = await needProgram('modprobe');
  const missing: string[] = [];
  for (const name of modules) {
    const args = ['-d', root, '-S', release, '--show-depends', '--ignore-install', name];
    if ((await host(modprobe, args, { reject: false })).failed) missing.push(name);
  }
  return missing;
}
