import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { LoopanicError, UsageError } from '../base/errors.js';
import { buildOnce } from '../base/files.js';
import { cacheDir } from '../base/paths.js';
import type { Progress } from '../base/progress.js';
import { ensureBuildTree } from '../kernel/build-tree.js';
import { type Kernel, stockModulePath } from '../kernel/kernel.js';
import { codeKey } from '../kernel/module-code.js';
import { type BuildOptions, buildModule } from './build.js';
import { MODULE_NAME } from './prebuilt.js';
import type { Change } from './sources.js';

/** Modules that another may turn out to be. */
export interface KnownModules {
  /** Names of loopanic's variants, and the file of one for this kernel. */
  variants: readonly string[];
  fileOf: (variant: string) => Promise<string>;
  /** Names what the unchanged source of this kernel is built from. */
  unchangedKey: string;
}

/** Which of the modules that are known for a kernel has the same code: its own (as it came, or built anew from its unchanged source), or a variant; null if none has. */
export async function sameCode(
  file: string,
  kernel: Kernel,
  known: KnownModules,
  progress: Progress,
  options: BuildOptions,
  signal: AbortSignal | undefined,
): Promise<string | null> {
  const key = await codeKey(file);
  if (key === (await codeKey(stockModulePath(kernel)))) return 'stock';
  const tree = await ensureBuildTree(kernel, progress).catch((error: unknown) => {
    if (error instanceof LoopanicError) return null;
    throw error;
  });
  // A .ko of a kernel without its source: nothing else can be built to compare it with.
  if (!tree?.source) return null;
  const unchanged: Change = { kind: 'unchanged' };
  const dir = cacheDir('modules', `unchanged-${known.unchangedKey}`);
  const built = join(dir, `${MODULE_NAME}.ko`);
  await buildOnce(dir, async (out) => {
    await mkdir(out);
    const job = {
      name: '(the unchanged source)',
      change: unchanged,
      kernel,
      target: join(out, `${MODULE_NAME}.ko`),
    };
    await buildModule(job, options, progress, signal);
  });
  if (key === (await codeKey(built))) return 'stock';
  for (const name of known.variants) {
    const variant = await known.fileOf(name).catch((error: unknown) => {
      // One that does not fit this kernel is no match.
      if (error instanceof UsageError) return null;
      throw error;
    });
    if (variant !== null && variant !== stockModulePath(kernel) && key === (await codeKey(variant)))
      return name;
  }
  return null;
}
