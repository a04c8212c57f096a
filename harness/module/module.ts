import { createHash } from 'node:crypto';
import { copyFile, mkdir, readdir, readFile, realpath } from 'node:fs/promises';
import { basename, join } from 'node:path';
import * as z from 'zod';
import { UsageError } from '../base/errors.js';
import { buildOnce, contentKey, exists, writeJson } from '../base/files.js';
import { suggestion } from '../base/nearest.js';
import { cacheDir, imagesDir } from '../base/paths.js';
import type { Progress } from '../base/progress.js';
import { readYaml } from '../base/yaml-file.js';
import { ensureBuildTree } from '../kernel/build-tree.js';
import { type Kernel, stockModulePath } from '../kernel/kernel.js';
import { type ModuleInfo, readModule } from '../kernel/module-file.js';
import { BUILD_DEFAULTS, type BuildOptions, buildModule } from './build.js';
import { checkPrebuilt, MODULE_NAME } from './prebuilt.js';
import { sameCode } from './same-code.js';
import { type Change, changeContent, changeNames, checkPatch } from './sources.js';

const variantSchema = z.strictObject({
  summary: z.string(),
  already: z
    .string()
    .optional()
    .describe('text in the source of a kernel whose stock module is this variant already'),
  patches: z.array(z.string()).min(1),
});
const variantsSchema = z.record(z.string(), variantSchema);
export type Variant = z.infer<typeof variantSchema>;

/** A module ready to be tried with one kernel. */
export interface Module {
  /** `stock`, a variant's name, a name that the user gave, or the file name of a prebuilt .ko or a patch with a part of its hash. */
  id: string;
  /** The .ko on this host. */
  file: string;
  info: ModuleInfo;
  identity: ModuleIdentity;
}

/** What a module under test is, beside its name. */
export interface ModuleIdentity {
  /** Of the .ko, hex. */
  sha256: string;
  /** Files that it was made of, in order: patches with their subjects, or the files of a folder. */
  source: string[];
  /** The kernel's own module, or a variant of loopanic's, whose code is the same; null if none is. Of those themselves: null. */
  sameCodeAs: string | null;
}

/** Variants that are built from the kernel's source with a patch, by name. */
export function variants(): Promise<Record<string, Variant>> {
  return readYaml(join(imagesDir, 'modules/modules.yaml'), variantsSchema);
}

const namedDir = (kernel: Kernel, ...parts: string[]): string =>
  cacheDir('modules', 'named', `${kernel.id}-${kernel.key}`, ...parts);

/** Modules that the user has built or given a name for one kernel. */
async function namedModules(kernel: Kernel): Promise<string[]> {
  return (await readdir(namedDir(kernel)).catch(() => [])).sort();
}

/** Every name that a module can have on this host: loopanic's own, and those that the user gave, for whatever kernel. */
export async function moduleNames(): Promise<string[]> {
  const root = cacheDir('modules', 'named');
  const kernels = await readdir(root).catch(() => []);
  const named = await Promise.all(kernels.map((kernel) => readdir(join(root, kernel)).catch(() => [])));
  return [...new Set(['stock', ...Object.keys(await variants()), ...named.flat()])];
}

/** Modules that exist for a kernel, without building any. */
export async function modulesOf(kernel: Kernel): Promise<string[]> {
  const there: string[] = [];
  if (await exists(stockModulePath(kernel))) there.push('stock');
  for (const [name, variant] of Object.entries(await variants()))
    if (await exists(await variantFile(name, variant, kernel))) there.push(name);
  return [...there, ...(await namedModules(kernel))];
}

type IdKind = 'stock' | 'name' | 'ko' | 'patch';

function kindOf(id: string): IdKind {
  if (id.endsWith('.patch') || id.endsWith('.diff')) return 'patch';
  if (id.includes('/') || id.endsWith('.ko')) return 'ko';
  return id === 'stock' ? 'stock' : 'name';
}

/** Checks a module's name before anything is fetched or built. `kernel` is null if it is not on this host yet. Throws UsageError with the nearest names. */
export async function checkModuleId(id: string, kernel: Kernel | null): Promise<void> {
  const kind = kindOf(id);
  if (kind === 'ko') await readModule(id);
  if (kind === 'patch') await checkPatch(id);
  if (kind !== 'name') return;
  const names = ['stock', ...Object.keys(await variants()), ...(kernel ? await namedModules(kernel) : [])];
  if (!names.includes(id))
    throw new UsageError('unknown-module', `unknown module ${id}${suggestion(id, names)}`);
}

/**
 * The module for this kernel: its own, a variant or a patched one (built now if it is not in the cache), one that has a name, or a prebuilt file, which must
 * carry the kernel's vermagic: the guest would refuse another. Throws UsageError.
 */
export async function ensureModule(
  id: string,
  kernel: Kernel,
  progress: Progress,
  options: BuildOptions = BUILD_DEFAULTS,
  signal?: AbortSignal,
  anew = false,
): Promise<Module> {
  await checkModuleId(id, kernel);
  const stock = stockModulePath(kernel);
  const found = async (file: string, as = id, source: string[] = []): Promise<Module> => ({
    id: as,
    file,
    info: await readModule(file),
    identity: { sha256: sha256(await readFile(file)), source, sameCodeAs: null },
  });
  /** A module of the user's, compared with those that are known. */
  const own = async (file: string, as: string, source: string[]): Promise<Module> => {
    const module = await found(file, as, source);
    const known = {
      variants: Object.keys(await variants()),
      fileOf: async (name: string) => (await ensureModule(name, kernel, progress, options, signal)).file,
      unchangedKey: await changeKey({ kind: 'unchanged' }, kernel),
    };
    module.identity.sameCodeAs = await sameCode(file, kernel, known, progress, options, signal);
    return module;
  };
  if (id === 'stock') return found(stock);
  const kind = kindOf(id);
  if (kind === 'ko') {
    const file = await realpath(id);
    await checkPrebuilt(file, kernel);
    // Files of this name abound: the content tells them apart.
    return own(file, `${basename(id)}@${contentKey(await readFile(file)).slice(0, 8)}`, [basename(id)]);
  }
  const build = async (name: string, change: Change, target: string): Promise<void> => {
    await buildOnce(
      target,
      async (out) => {
        await mkdir(out);
        const to = join(out, KO);
        await buildModule({ name, change, kernel, target: to }, options, progress, signal);
      },
      anew,
    );
  };
  if (kind === 'patch') {
    const change: Change = { kind: 'series', files: [await realpath(id)] };
    const as = `${basename(id)}@${contentKey(...(await changeContent(change))).slice(0, 8)}`;
    const dir = cacheDir('modules', `patched-${await changeKey(change, kernel)}`);
    await build(id, change, dir);
    return own(join(dir, KO), as, await changeNames(change));
  }
  const named = namedDir(kernel, id, KO);
  if (await exists(named)) return own(named, id, await namedSource(kernel, id));
  const variant = (await variants())[id];
  if (!variant) throw new UsageError('unknown-module', `unknown module ${id}`);
  const file = await variantFile(id, variant, kernel);
  if (!anew && (await exists(file))) return found(file);
  if (variant.already !== undefined && (await sourceHas(variant.already, kernel, progress))) {
    progress.line(`module ${id}: ${kernel.id}'s source is so already: its stock module it is`);
    return found(stock);
  }
  await build(id, variantChange(variant), join(file, '..'));
  return found(file);
}

const KO = `${MODULE_NAME}.ko`;

function variantChange({ patches }: Variant): Change {
  return { kind: 'first-fitting', files: patches.map((patch) => join(imagesDir, 'modules', patch)) };
}

async function changeKey(change: Change, kernel: Kernel): Promise<string> {
  return contentKey(kernel.id, kernel.key, kernel.release, ...(await changeContent(change)));
}

async function variantFile(name: string, variant: Variant, kernel: Kernel): Promise<string> {
  return cacheDir('modules', `${name}-${await changeKey(variantChange(variant), kernel)}`, KO);
}

async function sourceHas(text: string, kernel: Kernel, progress: Progress): Promise<boolean> {
  const { source } = await ensureBuildTree(kernel, progress);
  if (source === null) return false;
  return (await readFile(join(source, 'drivers/scsi/libiscsi_tcp.c'), 'utf8')).includes(text);
}

/** A module that the user makes and names. */
export interface NamedModule {
  name: string;
  from: { patches: readonly string[] } | { source: string } | { ko: string };
}

/**
 * Builds (or takes) a module for one kernel and keeps it under a name, in place of an earlier one of that name. Throws UsageError if the name is taken, or if
 * the patch, source or file will not do.
 */
export async function nameModule(
  { name, from }: NamedModule,
  kernel: Kernel,
  progress: Progress,
  options: BuildOptions,
  signal: AbortSignal,
): Promise<Module> {
  const taken = ['stock', ...Object.keys(await variants())];
  if (taken.includes(name))
    throw new UsageError('bad-usage', `--name ${name}: is one of loopanic's own modules: choose another`);
  if (!/^[A-Za-z0-9][\w.+-]*$/.test(name) || kindOf(name) !== 'name')
    throw new UsageError(
      'bad-usage',
      `--name ${name}: may hold letters, digits, '.', '_', '+' and '-' only, and must not end in .ko or .patch`,
    );
  if ('patches' in from) for (const patch of from.patches) await checkPatch(patch);
  if ('ko' in from) await checkPrebuilt(from.ko, kernel);
  await buildOnce(
    namedDir(kernel, name),
    async (out) => {
      await mkdir(out);
      const target = join(out, KO);
      let source: string[] = [];
      if ('ko' in from) {
        await copyFile(from.ko, target);
        source = [basename(from.ko)];
      } else {
        const change: Change =
          'patches' in from
            ? { kind: 'series', files: await Promise.all(from.patches.map((patch) => realpath(patch))) }
            : { kind: 'source', dir: from.source };
        source = await changeNames(change);
        await buildModule({ name, change, kernel, target }, options, progress, signal);
      }
      await writeJson(join(out, 'module.json'), {
        name,
        from,
        source,
        kernel: kernel.id,
        builtAt: new Date().toISOString(),
      });
    },
    true,
  );
  return ensureModule(name, kernel, progress, options, signal);
}

/** What a named module was made of, as it was noted then. */
async function namedSource(kernel: Kernel, name: string): Promise<string[]> {
  const text = await readFile(namedDir(kernel, name, 'module.json'), 'utf8').catch(() => '{}');
  const parsed = z.object({ source: z.array(z.string()).default([]) }).safeParse(JSON.parse(text));
  return parsed.success ? parsed.data.source : [];
}

function sha256(content: Buffer): string {
  return createHash('sha256').update(content).digest('hex');
}
