import { lstat, mkdir, readdir, readlink, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { UsageError } from '../base/errors.js';
import { buildOnce, contentKey, exists, scratchDir } from '../base/files.js';
import { insideOf, readGiven } from '../base/given-file.js';
import type { Progress } from '../base/progress.js';
import type { GateModule } from '../bug/bug.js';
import { gateModules } from '../bug/family.js';
import { bounded } from '../host/bounded.js';
import { commandError, host } from '../host/command.js';
import { needProgram } from '../host/tools.js';
import { fileKind, unpackPackage } from '../package/package-files.js';
import { downloadRpm } from '../package/rpm-repository.js';
import { catalogueEntry, located } from './catalogue.js';
import { debianPackages, headerPackages } from './debian.js';
import type { Kernel } from './kernel.js';
import { linkFolder } from './store.js';

/** What a module of this kernel is built against and from. */
export interface BuildTree {
  /** Folder that holds the headers and everything that they refer to. */
  root: string;
  /** Folder below `root` for `make -C`. */
  headers: string;
  /** What the family's modules are built from, at its places in this kernel's own source; null if nobody gave it. */
  source: string | null;
}

/** Files of the kernel's source that a module is made of, by patterns of tar and globs alike. */
export function sourcePatterns({ dir, sources }: GateModule): string[] {
  return sources.map((file) => `${dir}/${file}`);
}

/** True if a folder is a kernel's source with a module of the family. */
export async function hasModuleSource(dir: string): Promise<boolean> {
  for (const { dir: place, sources } of gateModules())
    if (await exists(join(dir, place, sources[0] ?? ''))) return true;
  return false;
}

/** Packages, archives or folders that a build tree is made from. */
export interface BuildFiles {
  /** Headers: kernel-devel RPM; headers, common and kbuild .debs; or the folder that the kernel was built in. */
  devel: readonly string[];
  /** Source RPM, linux-source .deb, tar archive, or folder. */
  source: string | null;
}

/** No file of a module's source is larger. */
const MOST_SOURCE_MIB = 16;
const MOST_SYMBOLS_MIB = 64;

/** Cached trees with fewer modules than the family has are not used. */
const ALL_SOURCES = contentKey(...gateModules().flatMap(sourcePatterns));

/**
 * Headers and source of exactly this kernel's build: as they were added with it, or fetched now from where the kernel came from.
 * Throws UsageError if it was added without them, InfraError if its repository no longer has them.
 */
export async function ensureBuildTree(kernel: Kernel, progress: Progress): Promise<BuildTree> {
  const added = join(kernel.dir, 'devel');
  const fetched = kernel.origin === 'debian' || (kernel.origin === 'rpm' && !(await exists(added)));
  const dir = fetched ? join(kernel.dir, `devel-${ALL_SOURCES}`) : added;
  if (!(await exists(dir)))
    await progress.step(`headers and source of ${kernel.id}`, async (update) => {
      await using scratch = await scratchDir('headers');
      const files = await fetchBuildFiles(kernel, scratch.path, update);
      await buildOnce(dir, (out) => layOutBuildTree(out, files, kernel.release, update));
    });
  return openBuildTree(dir, kernel.release);
}

async function fetchBuildFiles(
  kernel: Kernel,
  dir: string,
  update: (text: string) => void,
): Promise<BuildFiles> {
  if (kernel.origin === 'debian') {
    const { suite = '', sourcePackage = '', version } = kernel;
    const [source = '', ...devel] = await debianPackages(
      { id: kernel.id, suite, version, names: [sourcePackage, ...(await headerPackages(kernel))] },
      dir,
      update,
    );
    return { devel, source };
  }
  const entry = kernel.origin === 'rpm' ? await catalogueEntry(kernel.id).catch(() => null) : null;
  if (entry?.origin !== 'rpm' || !entry.devel || !entry.sources)
    throw new UsageError(
      'no-build-files',
      `kernel ${kernel.id} was added without what a module is built from: add it again with --devel and --source`,
    );
  return {
    devel: [(await downloadRpm(await located(entry.devel), dir, update)).file],
    source: (await downloadRpm(await located(entry.sources), dir, update)).file,
  };
}

/** Unpacks the files into `out` for `openBuildTree`. Throws UsageError if something is missing in them. */
export async function layOutBuildTree(
  out: string,
  files: BuildFiles,
  release: string,
  update: (text: string) => void,
): Promise<void> {
  const tree = join(out, 'tree');
  const kinds = await Promise.all(files.devel.map(fileKind));
  const [first = ''] = files.devel;
  if (kinds.includes('directory')) {
    if (files.devel.length > 1)
      throw new UsageError(
        'odd-files',
        `${files.devel.join(', ')}: headers are either one folder or packages`,
      );
    // The user's own folder: read where it is, and never changed.
    await linkFolder(await realpath(first), tree);
  } else {
    for (const file of files.devel) {
      update(`unpacking ${file.replace(/.*\//, '')}`);
      await unpackPackage(file, tree);
    }
    await relocate(tree);
  }
  const { headers } = await openBuildTree(out, release);
  for (const name of ['Makefile', 'Module.symvers', 'include/generated/utsrelease.h'])
    if (!(await exists(join(headers, name))))
      throw new UsageError(
        'incomplete-headers',
        `${files.devel.join(', ')}: no ${name} for ${release} in it: modules cannot be built against it`,
      );
  const made = (await readGiven(join(headers, 'include/generated/utsrelease.h'), MOST_SOURCE_MIB)).toString();
  if (!made.includes(`"${release}"`))
    throw new UsageError(
      'wrong-headers',
      `${files.devel.join(', ')}: belongs to ${/"(.*)"/.exec(made)?.[1]}, not to ${release}`,
    );
  if (files.source === null) return;
  update(`taking the modules' sources out of ${files.source.replace(/.*\//, '')}`);
  await using scratch = await scratchDir('source');
  await extractSources(files.source, join(out, 'source'), scratch.path, release);
}

async function openBuildTree(dir: string, release: string): Promise<BuildTree> {
  const root = join(dir, 'tree');
  const places = [`usr/src/linux-headers-${release}`, `usr/src/kernels/${release}`, '.'];
  let headers = root;
  for (const place of places)
    if (await exists(join(root, place, 'Makefile'))) {
      headers = join(root, place);
      break;
    }
  const source = join(dir, 'source');
  return { root, headers, source: (await exists(source)) ? source : null };
}

/** Debian's headers name /usr/src/…-common and /usr/lib/linux-kbuild-… by absolute paths; ours lie elsewhere. */
async function relocate(tree: string): Promise<void> {
  const sources = join(tree, 'usr/src');
  for (const name of await readdir(sources).catch(() => [])) {
    if (!name.startsWith('linux-headers-')) continue;
    // Through a link a host's own headers would be changed.
    await insideOf(tree, join(sources, name), 'odd-kernel');
    const makefile = join(sources, name, 'Makefile');
    if (!(await lstat(makefile).catch(() => null))?.isFile()) continue;
    const text = String(await readGiven(makefile, MOST_SOURCE_MIB).catch(() => ''));
    if (/\/usr\/src\/\S*-common/.test(text))
      await writeFile(
        makefile,
        text.replace(/\/usr\/src\/(\S*-common)/, (_, common) => `$(CURDIR)/../${common}`),
      );
    for (const link of ['scripts', 'tools']) {
      const path = join(sources, name, link);
      const to = await readlink(path).catch(() => null);
      if (!to?.startsWith('/')) continue;
      await rm(path);
      await symlink(`../../..${to}`, path);
    }
  }
}

async function extractSources(from: string, target: string, scratch: string, release: string): Promise<void> {
  const unpacked = join(scratch, 'unpacked');
  await mkdir(unpacked);
  const kind = await fileKind(from);
  let top = from;
  if (kind !== 'directory') {
    const archive = kind === 'tar' ? from : await sourceArchive(from, kind, join(scratch, 'package'));
    const members = [
      ...gateModules()
        .flatMap(sourcePatterns)
        .map((file) => `*/${file}`),
      '*/Makefile',
    ];
    const tar = await needProgram('tar');
    const unpack = [
      '-x',
      '--force-local',
      '-f',
      resolve(archive),
      '-C',
      unpacked,
      '--strip-components=1',
      '--wildcards',
      '--no-wildcards-match-slash',
      ...members,
    ];
    const done = await bounded(unpacked, from, (cancelSignal) =>
      host(tar, unpack, { reject: false, cancelSignal }),
    );
    if (done.failed && !/Not found in archive/.test(done.stderr)) throw commandError('tar', done);
    top = unpacked;
  }
  const version = await sourceVersion(top);
  if (version !== null && !new RegExp(`^${version.replaceAll('.', '\\.')}(?![0-9])`).test(release))
    throw new UsageError('wrong-source', `${from}: is the source of ${version}, not of ${release}`);
  let found = 0;
  for (const module of gateModules()) {
    const files = await sourceFiles(top, module);
    if (files.length > 0) found++;
    for (const file of files) {
      await mkdir(dirname(join(target, file)), { recursive: true });
      const own = await insideOf(top, join(top, file), 'odd-source');
      await writeFile(join(target, file), await readGiven(own, MOST_SOURCE_MIB, 'odd-source'));
    }
  }
  const [usual] = gateModules();
  if (found === 0 && usual)
    throw new UsageError('incomplete-source', `${from}: there is no ${usual.dir}/${usual.sources[0]} in it`);
}

/** Files of a module below a kernel's source, in order; none if the one with its gate is not there. */
export async function sourceFiles(source: string, module: GateModule): Promise<string[]> {
  if (!(await exists(join(source, module.dir, module.sources[0] ?? '')))) return [];
  const files = new Set<string>();
  for (const pattern of sourcePatterns(module)) {
    const folder = dirname(pattern);
    const name = new RegExp(
      `^${pattern
        .slice(folder.length + 1)
        .replaceAll('.', '\\.')
        .replace('*', '.*')}$`,
    );
    for (const file of await readdir(join(source, folder)).catch(() => []))
      if (name.test(file)) files.add(join(folder, file));
  }
  return [...files].sort();
}

/**
 * Version and patch level of a kernel source by its Makefile, such as "3.10"; null if it has none. What follows differs between a
 * package's name and its Makefile.
 */
async function sourceVersion(top: string): Promise<string | null> {
  const text = String(await readGiven(join(top, 'Makefile'), MOST_SOURCE_MIB).catch(() => ''));
  const [version, patchlevel] = ['VERSION', 'PATCHLEVEL'].map(
    (name) => new RegExp(`^${name} = (\\d+)`, 'm').exec(text)?.[1],
  );
  return version !== undefined && patchlevel !== undefined ? `${version}.${patchlevel}` : null;
}

/** Content of what modules are built from and against, which a kernel's name has to change with. */
export async function buildTreeContent(dir: string, release: string): Promise<Buffer[]> {
  if (!(await exists(dir))) return [];
  const { headers, source } = await openBuildTree(dir, release);
  const files = [
    ...['Module.symvers', '.config', 'include/generated/autoconf.h'].map((name) => join(headers, name)),
    ...(source === null
      ? []
      : (await Promise.all(gateModules().map((module) => sourceFiles(source, module))))
          .flat()
          .map((name) => join(source, name))),
  ];
  return Promise.all(files.map((file) => readGiven(file, MOST_SYMBOLS_MIB).catch(() => Buffer.alloc(0))));
}

/** The kernel's source archive inside a source package. */
async function sourceArchive(from: string, kind: string, dir: string): Promise<string> {
  await unpackPackage(from, dir, kind === 'deb' ? './usr/src/linux-source-*.tar.*' : 'linux-*.tar*');
  const folder = kind === 'deb' ? join(dir, 'usr/src') : dir;
  const names = (await readdir(folder).catch(() => [])).filter((name) => /^linux-.*\.tar\.\w+$/.test(name));
  const [name] = names;
  if (name === undefined)
    throw new UsageError('incomplete-source', `${from}: there is no linux-….tar archive in it`);
  return join(folder, name);
}
