import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { copyFile, cp, mkdir, readdir, realpath } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { UsageError } from '../base/errors.js';
import { contentKey, exists, scratchDir } from '../base/files.js';
import type { Progress } from '../base/progress.js';
import { command } from '../host/command.js';
import { needProgram } from '../host/tools.js';
import { layOutBuildTree } from './build-tree.js';
import { catalogue, knownKeys } from './catalogue.js';
import { layOutDebugInfo } from './debug-info.js';
import type { Kernel, KernelPackage } from './kernel.js';
import { type FileKind, fileKind, findFiles, unpackPackage } from './package-files.js';
import { kernelProfile } from './profile.js';
import { checkRpm, requireSigned, rpmInfo, type SigningKey } from './rpm.js';
import { layOut, storeKernel } from './store.js';

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
}

/**
 * Puts a kernel that people have on disk into the cache. Throws UsageError if something is missing in it, if a package is damaged or not signed as asked,
 * or if the kernel cannot show the bug.
 */
export async function addKernel(request: AddRequest, progress: Progress): Promise<Kernel> {
  return progress.step(`adding ${request.files.map((file) => basename(file)).join(' ')}`, async (update) => {
    const kinds = await Promise.all(request.files.map(fileKind));
    const origin = originOf(request.files, kinds);
    const given = [...request.devel, request.source, request.debuginfo].filter((file) => file !== undefined);
    await Promise.all(given.map(fileKind));
    const packages: KernelPackage[] = [];
    for (const file of [...request.files, ...given]) {
      update(`checking ${basename(file)}`);
      packages.push(await describe(file, request));
    }
    await using scratch = await scratchDir('kernel');
    const out = join(scratch.path, 'out');
    await mkdir(out);
    const build = { devel: request.devel, source: request.source ?? null };
    let { debuginfo } = request;
    if (origin === 'directory') {
      const dir = await realpath(request.files[0] ?? '');
      await copyDirectory(dir, out, update);
      // The folder that a kernel was built in brings all the rest.
      if (build.devel.length === 0 && (await exists(join(dir, 'Module.symvers')))) build.devel = [dir];
      if (build.source === null && (await exists(join(dir, 'drivers/scsi/libiscsi_tcp.c'))))
        build.source = dir;
      if (debuginfo === undefined && (await exists(join(dir, 'vmlinux')))) debuginfo = join(dir, 'vmlinux');
    } else
      for (const file of request.files) {
        update(`unpacking ${basename(file)}`);
        await unpackPackage(file, out);
      }
    const source = request.files.map((file) => basename(file)).join(', ');
    const found = await layOut(out, source, update);
    const config = join(out, 'boot', `config-${found.release}`);
    const { unfit, notes } = await kernelProfile(found.release, config);
    if (unfit.length > 0 && !request.force)
      throw new UsageError(
        'unfit-kernel',
        `${source}: ${found.release} cannot show the bug: ${unfit.join('; ')}; --force takes it all the same`,
      );
    for (const note of [...unfit, ...notes]) progress.line(`${found.release}: ${note}`);
    if (build.devel.length > 0) await layOutBuildTree(join(out, 'devel'), build, found.release, update);
    else if (build.source !== null)
      throw new UsageError(
        'no-devel',
        '--source without --devel: a module is built against the headers of --devel',
      );
    if (debuginfo !== undefined) await layOutDebugInfo(join(out, 'debug'), debuginfo, found.release, update);
    const version = packages[0]?.version || found.release;
    const key = `${version.replace(/[^\w.+~-]/g, '_')}-${contentKey(...packages.map(({ sha256 = '' }) => sha256), origin === 'directory' ? await treeKey(out) : '')}`;
    return await storeKernel(out, key, {
      id: await chooseId(request.id, found.release),
      origin,
      ...found,
      version,
      packages,
      forced: [...unfit],
      fetchedAt: new Date().toISOString(),
    });
  });
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
  const sha256 = await sha256Of(file);
  if (kind !== 'rpm') {
    const fields = kind === 'deb' ? ['-f', file, 'Package', 'Version'] : null;
    const text = fields ? await command(await needProgram('dpkg-deb'), fields) : '';
    const [name = basename(file), version = ''] = ['Package', 'Version'].map(
      (field) => new RegExp(`^${field}: (.*)$`, 'm').exec(text)?.[1],
    );
    return { name, version, sha256 };
  }
  const { name, version } = await rpmInfo(file);
  return { name, version, sha256, signature: await vouch(file, request) };
}

/** With --key the signature must be that key's. Without, an RPM that no known key signed is taken, but never a damaged one. */
async function vouch(file: string, { key, verify }: AddRequest): Promise<string> {
  if (!verify) return 'not verified (--no-verify)';
  if (key !== undefined) {
    const given: SigningKey = { name: key, file: resolve(key), fingerprint: null };
    return requireSigned(file, [given]);
  }
  const check = await checkRpm(file, await knownKeys());
  if (check.state === 'damaged')
    throw new UsageError(
      'damaged-package',
      `${file}: is damaged: ${check.text}; --no-verify would use it all the same`,
    );
  return check.state === 'verified' ? check.by : `not verified: ${check.text}`;
}

async function sha256Of(file: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return hash.digest('hex');
}

/** Image, configuration and modules of a folder: one that a kernel was built in, or one with boot/ and lib/modules/. */
async function copyDirectory(dir: string, out: string, update: (text: string) => void): Promise<void> {
  const first = async (names: string[]): Promise<string | undefined> => {
    for (const name of names) if (await exists(join(dir, name))) return join(dir, name);
    return undefined;
  };
  const image = await first([
    'arch/x86/boot/bzImage',
    'bzImage',
    'vmlinuz',
    'boot/bzImage',
    ...(await topLevel(dir, /^vmlinuz-/)),
  ]);
  const config = await first(['.config', 'config', 'boot/config', ...(await topLevel(dir, /^config-/))]);
  if (!image) throw new UsageError('incomplete-kernel', `${dir}: there is no bzImage or vmlinuz in it`);
  if (!config)
    throw new UsageError('incomplete-kernel', `${dir}: there is no .config, config or config-RELEASE in it`);
  await mkdir(join(out, 'boot'));
  if (await exists(join(dir, 'modules.order'))) {
    update('make modules_install');
    await command(await needProgram('make'), [
      ...['-C', dir, '-s', `-j${availableParallelism()}`, 'modules_install'],
      ...[`INSTALL_MOD_PATH=${out}`, 'INSTALL_MOD_STRIP=1', 'DEPMOD=true'],
    ]);
  } else {
    const modules = await first(['lib/modules', 'usr/lib/modules', 'modules/lib/modules']);
    if (!modules)
      throw new UsageError(
        'incomplete-kernel',
        `${dir}: there is no lib/modules in it, and no modules.order of a build`,
      );
    update('copying modules');
    await cp(modules, join(out, 'lib/modules'), { recursive: true, verbatimSymlinks: true });
  }
  await copyFile(image, join(out, 'boot/vmlinuz'));
  await copyFile(config, join(out, 'boot/config'));
}

/** Paths of files directly in a folder or in its boot/. */
async function topLevel(dir: string, pattern: RegExp): Promise<string[]> {
  const found: string[] = [];
  for (const place of ['', 'boot/'])
    for (const name of await readdir(join(dir, place)).catch(() => []))
      if (pattern.test(name)) found.push(`${place}${name}`);
  return found.sort();
}

/** Content of a kernel's own files, which no package's checksum vouches for. */
async function treeKey(out: string): Promise<string> {
  const sums: string[] = [];
  for (const file of await findFiles(out, /^boot\/(vmlinuz|config)-|^lib\/modules\/.*\.ko$/))
    sums.push(file, await sha256Of(join(out, file)));
  return contentKey(...sums);
}

/** The name that the user gave, the catalogue's for this release, or the release itself. */
async function chooseId(wanted: string | undefined, release: string): Promise<string> {
  const known = await catalogue();
  const rpmEntry = (id: string): boolean => known[id]?.origin === 'rpm';
  const ofRelease = Object.entries(known).find(
    ([id, entry]) => rpmEntry(id) && entry.origin === 'rpm' && release.startsWith(`${entry.version}.`),
  )?.[0];
  const id = wanted ?? ofRelease ?? release;
  if (!/^[A-Za-z0-9][\w.+~-]*$/.test(id))
    throw new UsageError(
      'bad-usage',
      `--id ${id}: may hold letters, digits, '.', '_', '+', '~' and '-' only`,
    );
  if (Object.hasOwn(known, id) && !rpmEntry(id))
    throw new UsageError(
      'bad-usage',
      `--id ${id}: is the catalogue's name for ${known[id]?.summary}: choose another`,
    );
  return id;
}
