import { readFile, realpath } from 'node:fs/promises';
import { basename, join } from 'node:path';
import * as z from 'zod';
import { UsageError } from '../base/errors.js';
import { contentKey } from '../base/files.js';
import { suggestion } from '../base/nearest.js';
import { imagesDir } from '../base/paths.js';
import type { Progress } from '../base/progress.js';
import { readYaml } from '../base/yaml-file.js';
import { type Kernel, stockModulePath } from '../kernel/kernel.js';
import { buildVariant } from './build.js';
import { type ModuleInfo, readModule } from './elf.js';

/** The module that every scenario is about. */
export const MODULE_NAME = 'libiscsi_tcp';

const variantSchema = z.strictObject({
  summary: z.string(),
  patches: z.array(z.string()).min(1),
});
const variantsSchema = z.record(z.string(), variantSchema);
export type Variant = z.infer<typeof variantSchema>;

/** A module ready to be tried with one kernel. */
export interface Module {
  /** `stock`, a variant's name, or the file name of a prebuilt .ko. */
  id: string;
  /** The .ko on this host. */
  file: string;
  info: ModuleInfo;
}

/** Variants that are built from the kernel's source with a patch, by name. */
export function variants(): Promise<Record<string, Variant>> {
  return readYaml(join(imagesDir, 'modules/modules.yaml'), variantsSchema);
}

/** Names that `--module` takes beside a path. */
export async function moduleNames(): Promise<string[]> {
  return ['stock', ...Object.keys(await variants())];
}

/** True if `id` names a file rather than a variant. */
export function isModulePath(id: string): boolean {
  return id.includes('/') || id.endsWith('.ko');
}

/** Checks a module's name before anything is fetched or built. Throws UsageError with the nearest names. */
export async function checkModuleId(id: string): Promise<void> {
  if (isModulePath(id)) {
    await readModule(id);
    return;
  }
  const names = await moduleNames();
  if (!names.includes(id))
    throw new UsageError('unknown-module', `unknown module ${id}${suggestion(id, names)}`);
}

/**
 * The module for this kernel: its own, a variant (built now if it is not in the cache), or a prebuilt file, which must carry the
 * kernel's vermagic: the guest would refuse another. Throws UsageError.
 */
export async function ensureModule(id: string, kernel: Kernel, progress: Progress): Promise<Module> {
  await checkModuleId(id);
  const stock = stockModulePath(kernel);
  if (id === 'stock') return { id, file: stock, info: await readModule(stock) };
  if (!isModulePath(id)) {
    const variant = (await variants())[id];
    if (!variant) throw new UsageError('unknown-module', `unknown module ${id}`);
    const file = await buildVariant(id, variant.patches, kernel, progress);
    return { id, file, info: await readModule(file) };
  }
  const file = await realpath(id);
  const info = await readModule(file);
  if (info.name !== MODULE_NAME)
    throw new UsageError(
      'wrong-module',
      `${id}: is the module ${info.name || '(unnamed)'}, not ${MODULE_NAME}`,
    );
  if (info.buildId === null && info.srcversion === null)
    throw new UsageError(
      'anonymous-module',
      `${id}: carries neither a build id nor a srcversion, so the guest cannot show that it was loaded: link it with --build-id`,
    );
  const wanted = (await readModule(stock)).vermagic;
  if (info.vermagic !== wanted)
    throw new UsageError(
      'wrong-vermagic',
      `${id}: built for another kernel: its vermagic is "${info.vermagic}", ${kernel.id} needs "${wanted}"`,
    );
  // Files of this name abound: the content tells them apart.
  return { id: `${basename(id)}@${contentKey(await readFile(file)).slice(0, 8)}`, file, info };
}
