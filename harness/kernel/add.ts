import { cp, lstat, mkdir, readdir, realpath, rm, stat, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { firstLine, UsageError } from '../base/errors.js';
import { contentKey, exists, scratchDir, sha256OfFile } from '../base/files.js';
import { insideOf, readGiven } from '../base/given-file.js';
import type { Progress } from '../base/progress.js';
import { allBugs, transportOf } from '../bug/family.js';
import { command } from '../host/command.js';
import { needProgram } from '../host/tools.js';
import { type FileKind, fileKind, findFiles, unpackPackage } from '../package/package-files.js';
import { requireSigned, rpmInfo } from '../package/rpm.js';
import { buildTreeContent, hasModuleSource, layOutBuildTree } from './build-tree.js';
import { catalogue, knownKeys } from './catalogue.js';
import { layOutDebugInfo } from './debug-info.js';
import type { Kernel, KernelPackage } from './kernel.js';
import { kernelProfile } from './profile.js';
import { layOut, missingModules, storeKernel } from './store.js';

/** No kernel's image is larger. */
const MOST_IMAGE_MIB = 256;

/** What `kernel add` is given. */
export interface AddRequest {
  /** RPMs, .debs, or one directory. */
  files: readonly string[];
  devel: readonly string[];
  source?: string | undefined;
  debuginfo?: string | undefined;
  /** Name to give it; else the catalogue's for its release, else the release. */
  id?: string | undefined;
  /** Key that every RPM must be signed with. */
  key?: string | undefined;
  verify: boolean;
  /** Take it even if it cannot show the bug. */
  force: boolean;
  /** loopanic built it: what it is made of stands for the files, whose content differs with the time of day. */
  made?: {
    built: NonNullable<Kernel['built']>;
    version: string;
    packages: KernelPackage[];
    /** Puts what modules are built against in place of the link to the tree, which will not stay. */
    keepTree: (link: string) => Promise<void>;
  };
}

/**
 * Puts a kernel that people have on disk into the cache. Throws UsageError if something is missing in it, if a package is damaged or not
 * signed as asked, or if the kernel cannot show the bug.
 */
export async function addKernel(request: AddRequest, progress: Progress): Promise<Kernel> {
  return progress.step(`adding ${request.files.map((file) => basename(file)).join(' ')}`, async (update) => {
    const kinds = await Promise.all(request.files.map(fileKind));
    const origin = originOf(request.files, kinds);
    const given = [...request.devel, request.source, request.debuginfo].filter((file) => file !== undefined);
    await Promise.all(given.map(fileKind));
    const packages: KernelPackage[] = [...(request.made?.packages ?? [])];
    for (const file of request.made ? [] : [...request.files, ...given]) {
      update(`checking ${basename(file)}`);
      packages.push(await describe(file, request));
    }
    await using scratch = await scratchDir('kernel');
    const out = join(scratch.path, 'out');
    await mkdir(out);
    const build = { devel: request.devel, source: request.source ?? null };
    const source = request.files.map((file) => basename(file)).join(', ');
    let implied: string | undefined;
    if (origin === 'directory') {
      const dir = await realpath(request.files[0] ?? '');
      await copyDirectory(dir, out, update, progress, request.made !== undefined);
      // The folder that a kernel was built in brings all the rest; built elsewhere, it has a link to its source.
      const tree = (await hasModuleSource(dir)) ? dir : join(dir, 'source');
      if (build.devel.length === 0 && (await exists(join(dir, 'Module.symvers')))) build.devel = [dir];
      if (build.source === null && (await hasModuleSource(tree))) build.source = await realpath(tree);
      if (await exists(join(dir, 'vmlinux'))) implied = join(dir, 'vmlinux');
    } else
      for (const file of request.files) {
        update(`unpacking ${basename(file)}`);
        await unpackPackage(file, out);
      }
    const found = await layOut(out, source, update);
    const { unfit, notes } = await fitness(out, found.release);
    if (unfit.length > 0 && !request.force)
      throw new UsageError(
        'unfit-kernel',
        `${source}: ${found.release} cannot show the bug: ${unfit.join('; ')}; --force takes it all the same`,
      );
    for (const note of [...unfit, ...notes]) progress.line(`${found.release}: ${note}`);
    const devel = join(out, 'devel');
    if (build.devel.length > 0) await layOutBuildTree(devel, build, found.release, update);
    else if (build.source !== null)
      throw new UsageError(
        'no-devel',
        '--source without --devel: a module is built against the headers of --devel',
      );
    await request.made?.keepTree(join(devel, 'tree'));
    const debug = join(out, 'debug');
    if (request.debuginfo !== undefined)
      await layOutDebugInfo(debug, request.debuginfo, found.release, update);
    else if (implied !== undefined)
      await layOutDebugInfo(debug, implied, found.release, update).catch(async (error: unknown) => {
        await rm(debug, { recursive: true, force: true });
        progress.line(`no debug info: ${firstLine(error)}`);
      });
    const [kernel] = packages;
    const version = request.made?.version ?? (kernel?.version || found.release);
    checkBelonging(request, packages, version);
    const content =
      request.made?.built.key ??
      contentKey(await treeKey(out), ...(await buildTreeContent(devel, found.release)));
    const verified = packages.every(
      ({ signature }) => signature !== undefined && !signature.startsWith('not verified'),
    );
    return await storeKernel(out, `${version.replace(/[^\w.+~-]/g, '_')}-${content}`, {
      id: await chooseId(request.id, found.release, origin === 'rpm' && verified),
      origin,
      ...found,
      version,
      packages,
      forced: [...unfit],
      ...(request.made ? { built: request.made.built } : {}),
      fetchedAt: new Date().toISOString(),
    });
  });
}

/** What a laid-out kernel lacks, by its configuration and by the modules that a guest would load. */
async function fitness(out: string, release: string): Promise<{ unfit: string[]; notes: readonly string[] }> {
  const profile = await kernelProfile(release, join(out, 'boot', `config-${release}`));
  const { unfit, unfitFor, notes, modules } = profile;
  if (unfit.length > 0) return { unfit: [...unfit], notes };
  // What it lacks for every bug that its configuration speaks of.
  const shown = allBugs().filter(({ id }) => unfitFor[id] === undefined);
  const lacks = await Promise.all(
    shown.map(({ transport }) =>
      missingModules(out, release, [...modules, ...transportOf(transport).modules, 'xfs']),
    ),
  );
  const missing = lacks.every((list) => list.length > 0) ? (lacks[0] ?? []) : [];
  const text = `its packages have no ${missing.join(', ')} (is there one more package with modules?)`;
  return { unfit: missing.length > 0 ? [text] : [], notes };
}

/** A source RPM of another version would give modules of another kernel. */
function checkBelonging(request: AddRequest, packages: readonly KernelPackage[], version: string): void {
  const at = request.files.length + request.devel.length;
  const source = request.source === undefined ? undefined : packages[at];
  const isRpm = source?.signature !== undefined;
  if (isRpm && packages[0]?.signature !== undefined && source.version !== version)
    throw new UsageError(
      'wrong-source',
      `${request.source}: is ${source.name} ${source.version}, not ${version}`,
    );
}

function originOf(files: readonly string[], kinds: readonly FileKind[]): 'rpm' | 'deb' | 'directory' {
  const [kind] = kinds;
  if (kind === 'directory' && kinds.length === 1) return 'directory';
  if ((kind === 'rpm' || kind === 'deb') && kinds.every((other) => other === kind)) return kind;
  throw new UsageError(
    'odd-files',
    `${files.join(', ')}: a kernel is one or more RPMs, one or more .debs, or one directory (its headers go to --devel, its source to --source, its debug info to --debuginfo)`,
  );
}

/** What a file is, and what vouches for it. */
async function describe(file: string, request: AddRequest): Promise<KernelPackage> {
  const kind = await fileKind(file);
  if (kind === 'directory') return { name: resolve(file), version: '' };
  const sha256 = await sha256OfFile(file);
  if (kind !== 'rpm') {
    const fields = kind === 'deb' ? ['-f', file, 'Package', 'Version'] : null;
    const text = fields ? await command(await needProgram('dpkg-deb'), fields) : '';
    if (kind === 'deb' && request.verify)
      throw new UsageError(
        'bad-signature',
        `${file}: a .deb carries no signature, so nothing shows where it comes from: --no-verify takes it as it is, 'loopanic kernel fetch' takes Debian's by apt, which checks them`,
      );
    const [name = basename(file), version = ''] = ['Package', 'Version'].map(
      (field) => new RegExp(`^${field}: (.*)$`, 'm').exec(text)?.[1],
    );
    return { name, version, sha256 };
  }
  const { name, version } = await rpmInfo(file);
  return { name, version, sha256, signature: await vouch(file, request) };
}

/** The signature must be that of --key, or of a key that loopanic knows. Throws UsageError. */
async function vouch(file: string, { key, verify }: AddRequest): Promise<string> {
  if (!verify) return 'not verified (--no-verify)';
  return requireSigned(
    file,
    key === undefined ? await knownKeys() : [{ name: key, file: resolve(key), fingerprint: null }],
  );
}

/** Image, configuration and modules of a folder: one that a kernel was built in, or one with boot/ and lib/modules/. */
async function copyDirectory(
  dir: string,
  out: string,
  update: (text: string) => void,
  progress: Progress,
  isOwn: boolean,
): Promise<void> {
  await mkdir(join(out, 'boot'));
  if (await exists(join(dir, 'modules.order'))) {
    update('make modules_install');
    if (!isOwn) progress.line(`${dir}: its Makefile runs on this host, as you`);
    const args = [
      '-C',
      dir,
      '-s',
      `-j${availableParallelism()}`,
      'modules_install',
      `INSTALL_MOD_PATH=${out}`,
    ];
    await command(await needProgram('make'), [...args, 'INSTALL_MOD_STRIP=1', 'DEPMOD=true']).catch(
      (error: unknown) => {
        throw new UsageError('incomplete-kernel', `${dir}: make modules_install: ${firstLine(error)}`, error);
      },
    );
  } else {
    const modules = await first(dir, ['lib/modules', 'usr/lib/modules', 'modules/lib/modules']);
    if (!modules)
      throw new UsageError(
        'incomplete-kernel',
        `${dir}: there is no lib/modules in it, and no modules.order of a build`,
      );
    update('copying modules');
    // The trees themselves, not links to them: they are changed here.
    for (const name of await readdir(modules)) {
      const tree = await insideOf(dir, join(modules, name), 'odd-kernel');
      if (!(await stat(tree)).isDirectory()) continue;
      const links = async (path: string): Promise<boolean> => {
        const info = await lstat(path);
        if (!info.isFile() && !info.isDirectory() && !info.isSymbolicLink())
          throw new UsageError('odd-kernel', `${path}: is a FIFO, a socket or a device: this is not taken`);
        return !['build', 'source'].some((link) => path === join(tree, link));
      };
      await cp(tree, join(out, 'lib/modules', name), {
        recursive: true,
        verbatimSymlinks: true,
        filter: links,
      });
    }
  }
  const [release = ''] = await readdir(join(out, 'lib/modules')).catch(() => []);
  const own = (name: string): string[] => [
    ...[
      `${name}-${release}`,
      `boot/${name}-${release}`,
      `lib/modules/${release}/${name}`,
      `usr/lib/modules/${release}/${name}`,
    ],
    ...[name, `boot/${name}`],
  ];
  const image = await first(dir, ['arch/x86/boot/bzImage', ...own('vmlinuz'), 'bzImage', 'boot/bzImage']);
  const config = await first(dir, ['.config', ...own('config'), 'boot/.config']);
  if (!image)
    throw new UsageError(
      'incomplete-kernel',
      `${dir}: there is no bzImage, vmlinuz or vmlinuz-${release} in it`,
    );
  if (!config)
    throw new UsageError(
      'incomplete-kernel',
      `${dir}: there is no .config, config or config-${release} in it`,
    );
  await writeFile(
    join(out, 'boot/vmlinuz'),
    await readGiven(await insideOf(dir, image, 'odd-kernel'), MOST_IMAGE_MIB),
  );
  await writeFile(join(out, 'boot/config'), await readGiven(await insideOf(dir, config, 'odd-kernel'), 16));
}

async function first(dir: string, names: readonly string[]): Promise<string | undefined> {
  for (const name of names) if (await exists(join(dir, name))) return join(dir, name);
  return undefined;
}

/** Content of a kernel's own files. */
async function treeKey(out: string): Promise<string> {
  const sums: string[] = [];
  for (const file of await findFiles(out, /^boot\/(vmlinuz|config)-|^lib\/modules\/.*\.ko$/))
    sums.push(file, await sha256OfFile(join(out, file)));
  return contentKey(...sums);
}

/** The name that the user gave; for a verified RPM the catalogue's for its release; else the release itself. */
async function chooseId(wanted: string | undefined, release: string, verified: boolean): Promise<string> {
  const known = await catalogue();
  const listed = Object.entries(known).find(
    ([, entry]) => entry.origin === 'rpm' && entry.release === release,
  )?.[0];
  const id = wanted ?? (verified ? listed : undefined) ?? release;
  await checkNewId(id);
  return id;
}

/** Throws UsageError if a kernel cannot be given this id. */
export async function checkNewId(id: string): Promise<void> {
  const known = await catalogue();
  if (!/^[A-Za-z0-9][\w.+~-]*$/.test(id))
    throw new UsageError(
      'bad-usage',
      `--id ${id}: may hold letters, digits, '.', '_', '+', '~' and '-' only`,
    );
  if (known[id]?.origin === 'debian')
    throw new UsageError(
      'bad-usage',
      `--id ${id}: is the catalogue's name for ${known[id].summary}: choose another`,
    );
}
