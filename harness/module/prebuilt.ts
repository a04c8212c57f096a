import { join } from 'node:path';
import { UsageError } from '../base/errors.js';
import { exists } from '../base/files.js';
import { silentProgress } from '../base/progress.js';
import { ensureBuildTree } from '../kernel/build-tree.js';
import { type Kernel, stockModulePath } from '../kernel/kernel.js';
import { readModule } from '../kernel/module-file.js';
import { offeredSymbols, wantedSymbols, whyRefused } from '../kernel/symbol-versions.js';

/** The module that every scenario is about. */
export const MODULE_NAME = 'libiscsi_tcp';

/** Throws UsageError if a .ko cannot stand in for this kernel's module. */
export async function checkPrebuilt(path: string, kernel: Kernel): Promise<void> {
  const info = await readModule(path);
  if (info.name !== MODULE_NAME)
    throw new UsageError(
      'wrong-module',
      `${path}: is the module ${info.name || '(unnamed)'}, not ${MODULE_NAME}`,
    );
  if (info.buildId === null && info.srcversion === null)
    throw new UsageError(
      'anonymous-module',
      `${path}: carries neither a build id nor a srcversion, so the guest cannot show that it was loaded: link it with --build-id`,
    );
  const wanted = (await readModule(stockModulePath(kernel))).vermagic;
  if (!sameMagic(info.vermagic, wanted))
    throw new UsageError(
      'wrong-vermagic',
      `${path}: built for another kernel: its vermagic is "${info.vermagic}", ${kernel.id} needs "${wanted}"`,
    );
  // Without its headers a kernel offers at least what its own module wants.
  const tree = join(kernel.dir, 'devel');
  const headers = (await exists(tree)) ? (await ensureBuildTree(kernel, silentProgress)).headers : null;
  const stock = await wantedSymbols(stockModulePath(kernel));
  const offered = headers === null ? null : await offeredSymbols(headers);
  const mine = await wantedSymbols(path);
  const refused = whyRefused(
    offered
      ? mine
      : {
          ...mine,
          versions: new Map([...mine.versions].filter(([name]) => stock.versions.has(name))),
          undefinedSymbols: [],
        },
    offered ?? stock.versions,
  );
  if (refused !== null)
    throw new UsageError('wrong-symbols', `${path}: cannot be loaded by ${kernel.id}: ${refused}`);
}

/** As the kernel compares them (same_magic() in kernel/module.c): where both have modversions, the release does not count. */
function sameMagic(one: string, other: string): boolean {
  const both = [one, other];
  if (!both.every((magic) => / modversions\b/.test(magic))) return one === other;
  const [a, b] = both.map((magic) => magic.slice(magic.indexOf(' ')));
  return a === b;
}
