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
import type { GateModule } from '../bug/bug.js';
import { gateModules, koName } from '../bug/family.js';
import { ensureBuildTree } from '../kernel/build-tree.js';
import { type Kernel, stockModulePath } from '../kernel/kernel.js';
import { codeKey } from '../kernel/module-code.js';
import { type ModuleInfo, readModule } from '../kernel/module-file.js';
import { buildModule } from './build.js';
import { BUILD_DEFAULTS, type BuildOptions } from './build-options.js';
import { kindOf, takeKo } from './given.js';
import type { ModuleIdentity, ModuleRecord } from './identity.js';
import type { Place } from './place.js';
import { checkPrebuilt } from './prebuilt.js';
import { compareCode, type KnownModule } from './same-code.js';
import { type Change, changeContent, changeNames, checkPatch } from './sources.js';

const variantSchema = z.strictObject({
  summary: z.string(),
  already: z
    .string()
    .optional()
    .describe('text in the source of a kernel whose stock module is this variant already'),
  patches: z.array(z.string()).min(1),
});
/** variants.yaml: what of loopanic's own can stand in for a module. */
export const variantsSchema = z.record(z.string(), variantSchema);
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

/** What results say of a module. */
export function moduleRecord({ info, identity }: Module): ModuleRecord {
  const { vermagic, srcversion, buildId } = info;
  return { vermagic, srcversion, buildId, ...identity };
}

const variantsDir = (gate: GateModule): string => join(imagesDir, 'modules', gate.name);

/** Variants of a module that are built from the kernel's source with a patch, by name. */
export function variants(gate: GateModule): Promise<Record<string, Variant>> {
  return readYaml(join(variantsDir(gate), 'variants.yaml'), variantsSchema);
}

const namedRoot = (gate: GateModule): string => cacheDir('modules', 'named', gate.name);
const namedDir = ({ kernel, gate }: Place, ...parts: string[]): string =>
  join(namedRoot(gate), `${kernel.id}-${kernel.key}`, ...parts);

/** Modules that the user has built or given a name for one kernel. */
async function namedModules(place: Place): Promise<string[]> {
  return (await readdir(namedDir(place)).catch(() => [])).sort();
}

/** Every name that a module can have on this host: loopanic's own, and those that the user gave, for whatever kernel and bug. */
export async function moduleNames(): Promise<string[]> {
  const names = new Set(['stock']);
  for (const gate of gateModules()) {
    const root = namedRoot(gate);
    const kernels = await readdir(root).catch(() => []);
    const named = await Promise.all(kernels.map((kernel) => readdir(join(root, kernel)).catch(() => [])));
    for (const name of [...Object.keys(await variants(gate)), ...named.flat()]) names.add(name);
  }
  return [...names];
}

/** Modules that exist for a kernel, without building any. */
export async function modulesOf(place: Place): Promise<string[]> {
  const there: string[] = [];
  if (await exists(stockModulePath(place.kernel, place.gate))) there.push('stock');
  for (const [name, variant] of Object.entries(await variants(place.gate)))
    if (await exists(await variantFile(name, variant, place))) there.push(name);
  return [...there, ...(await namedModules(place))];
}

/**
 * Checks a module's name before anything is fetched or built. `kernel` is null if it is not on this host yet. Throws UsageError with the
 * nearest names.
 */
export async function checkModuleId(id: string, kernel: Kernel | null, gate: GateModule): Promise<void> {
  const kind = await kindOf(id);
  if (kind === 'ko' || kind === 'package') await readModule(await takeKo(id, gate));
  if (kind === 'patch') await checkPatch(id, gate);
  if (kind !== 'name') return;
  const named = kernel ? await namedModules({ kernel, gate }) : [];
  const names = ['stock', ...Object.keys(await variants(gate)), ...named];
  if (!names.includes(id))
    throw new UsageError('unknown-module', `unknown module ${id}${suggestion(id, names)}`);
}

/**
 * The module for this kernel: its own, a variant or a patched one (built now if it is not in the cache), one that has a name, or a
 * prebuilt file, which must carry the kernel's vermagic: the guest would refuse another. Throws UsageError.
 */
export async function ensureModule(
  id: string,
  place: Place,
  progress: Progress,
  options: BuildOptions = BUILD_DEFAULTS,
  signal?: AbortSignal,
  anew = false,
): Promise<Module> {
  const { kernel, gate } = place;
  const ko = koName(gate);
  await checkModuleId(id, kernel, gate);
  const stock = stockModulePath(kernel, gate);
  const found = async (file: string, as = id, source: string[] = []): Promise<Module> => ({
    id: as,
    file,
    info: await readModule(file),
    identity: { sha256: sha256(await readFile(file)), source, sameCodeAs: null, comparedWith: [] },
  });
  /** A module of the user's, compared with those that are known. */
  const own = async (file: string, as: string, source: string[]): Promise<Module> => {
    const module = await found(file, as, source);
    // As it came with the kernel it needs no compiler to be known again.
    const same =
      (await codeKey(file)) === (await codeKey(stock))
        ? { sameCodeAs: 'stock', comparedWith: ['stock'] }
        : await compareCode(file, await knownModules(place, progress, options, signal), progress);
    Object.assign(module.identity, same);
    return module;
  };
  if (id === 'stock') return found(stock);
  const kind = await kindOf(id);
  if (kind === 'ko' || kind === 'package') {
    const file = await takeKo(id, gate);
    await checkPrebuilt(file, place, progress);
    // Files of this name abound: the content tells them apart.
    return own(file, `${basename(id)}@${contentKey(await readFile(file)).slice(0, 8)}`, [basename(id)]);
  }
  const build = async (name: string, change: Change, target: string): Promise<void> => {
    await buildOnce(
      target,
      async (out) => {
        await mkdir(out);
        const to = join(out, ko);
        await buildModule({ name, change, ...place, target: to }, options, progress, signal);
      },
      anew,
    );
  };
  if (kind === 'patch' || kind === 'folder') {
    const given = await realpath(id);
    const change: Change =
      kind === 'patch' ? { kind: 'series', files: [given] } : { kind: 'source', dir: given };
    const as = `${basename(id)}@${contentKey(...(await changeContent(change, gate))).slice(0, 8)}`;
    const dir = cacheDir('modules', `patched-${await changeKey(change, place)}`);
    await build(id, change, dir);
    return own(join(dir, ko), as, await changeNames(change, gate));
  }
  const named = namedDir(place, id, ko);
  if (await exists(named)) return own(named, id, await namedSource(place, id));
  const variant = (await variants(gate))[id];
  if (!variant) throw new UsageError('unknown-module', `unknown module ${id}`);
  const file = await variantFile(id, variant, place);
  if (!anew && (await exists(file))) return found(file);
  if (variant.already !== undefined && (await sourceHas(variant.already, place, progress))) {
    progress.line(
      `module ${id}: the source of ${kernel.id} has this change already, so its stock module is used`,
    );
    return found(stock);
  }
  await build(id, variantChange(variant, gate), join(file, '..'));
  return found(file);
}

function variantChange({ patches }: Variant, gate: GateModule): Change {
  return { kind: 'first-fitting', files: patches.map((patch) => join(variantsDir(gate), patch)) };
}

async function changeKey(change: Change, { kernel, gate }: Place): Promise<string> {
  return contentKey(gate.name, kernel.id, kernel.key, kernel.release, ...(await changeContent(change, gate)));
}

async function variantFile(name: string, variant: Variant, place: Place): Promise<string> {
  const key = await changeKey(variantChange(variant, place.gate), place);
  return cacheDir('modules', `${name}-${key}`, koName(place.gate));
}

async function sourceHas(text: string, { kernel, gate }: Place, progress: Progress): Promise<boolean> {
  const { source } = await ensureBuildTree(kernel, progress);
  if (source === null) return false;
  const file = join(source, gate.dir, gate.sources[0] ?? '');
  return (await readFile(file, 'utf8').catch(() => '')).includes(text);
}

/** A module that the user makes and names. */
export interface NamedModule {
  name: string;
  from: { patches: readonly string[] } | { source: string } | { ko: string };
}

/**
 * Builds (or takes) a module for one kernel and keeps it under a name, in place of an earlier one of that name. Throws UsageError if the
 * name is taken, or if the patch, source or file will not do.
 */
export async function nameModule(
  { name, from }: NamedModule,
  place: Place,
  progress: Progress,
  options: BuildOptions,
  signal: AbortSignal,
): Promise<Module> {
  const { gate } = place;
  const taken = ['stock', ...Object.keys(await variants(gate))];
  if (taken.includes(name))
    throw new UsageError('bad-usage', `--name ${name}: is one of loopanic's own modules: choose another`);
  if (!/^[A-Za-z0-9][\w.+-]*$/.test(name) || (await kindOf(name)) !== 'name')
    throw new UsageError(
      'bad-usage',
      `--name ${name}: may hold letters, digits, '.', '_', '+' and '-' only, and must not end in .ko or .patch`,
    );
  if ('patches' in from) for (const patch of from.patches) await checkPatch(patch, gate);
  const prebuilt = 'ko' in from ? await takeKo(from.ko, gate) : null;
  if (prebuilt !== null) await checkPrebuilt(prebuilt, place, progress);
  await buildOnce(
    namedDir(place, name),
    async (out) => {
      await mkdir(out);
      const target = join(out, koName(gate));
      let source: string[] = [];
      if ('ko' in from) {
        await copyFile(prebuilt ?? from.ko, target);
        source = [basename(from.ko)];
      } else {
        const change: Change =
          'patches' in from
            ? { kind: 'series', files: await Promise.all(from.patches.map((patch) => realpath(patch))) }
            : { kind: 'source', dir: from.source };
        source = await changeNames(change, gate);
        await buildModule({ name, change, ...place, target }, options, progress, signal);
      }
      // What cannot be read does not take the place of one that can.
      await readModule(target);
      await codeKey(target);
      await writeJson(join(out, 'module.json'), {
        name,
        from,
        source,
        kernel: place.kernel.id,
        builtAt: new Date().toISOString(),
      });
    },
    true,
  );
  return ensureModule(name, place, progress, options, signal);
}

/** What a named module was made of, as it was noted then. */
async function namedSource(place: Place, name: string): Promise<string[]> {
  const text = await readFile(namedDir(place, name, 'module.json'), 'utf8').catch(() => '{}');
  const parsed = z.object({ source: z.array(z.string()).default([]) }).safeParse(JSON.parse(text));
  return parsed.success ? parsed.data.source : [];
}

/** Modules that are known for a kernel: its own, built anew from its unchanged source, and loopanic's variants. */
async function knownModules(
  place: Place,
  progress: Progress,
  options: BuildOptions,
  signal: AbortSignal | undefined,
): Promise<KnownModule[]> {
  const stock = stockModulePath(place.kernel, place.gate);
  const ko = koName(place.gate);
  const unchanged = async (): Promise<string> => {
    const change: Change = { kind: 'unchanged' };
    const dir = cacheDir('modules', `unchanged-${await changeKey(change, place)}`);
    await buildOnce(dir, async (out) => {
      await mkdir(out);
      const job = { name: '(the unchanged source)', change, ...place, target: join(out, ko) };
      await buildModule(job, options, progress, signal);
    });
    return join(dir, ko);
  };
  const variant = (name: string) => async (): Promise<string | null> => {
    const { file } = await ensureModule(name, place, progress, options, signal);
    // Where the kernel's own source is so already.
    return file === stock ? null : file;
  };
  return [
    { name: 'stock', file: unchanged },
    ...Object.keys(await variants(place.gate)).map((name) => ({ name, file: variant(name) })),
  ];
}

function sha256(content: Buffer): string {
  return createHash('sha256').update(content).digest('hex');
}
