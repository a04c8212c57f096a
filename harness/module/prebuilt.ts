import { InterruptedError, LoopanicError, UsageError } from '../base/errors.js';
import type { Progress } from '../base/progress.js';
import { ensureBuildTree } from '../kernel/build-tree.js';
import { stockModulePath } from '../kernel/kernel.js';
import { readModule } from '../kernel/module-file.js';
import { offeredSymbols, wantedSymbols, whyRefused } from '../kernel/symbol-versions.js';
import type { Place } from './place.js';

/** Throws UsageError if a .ko cannot stand in for this kernel's module. */
export async function checkPrebuilt(
  path: string,
  { kernel, gate }: Place,
  progress: Progress,
): Promise<void> {
  const info = await readModule(path);
  if (info.name !== gate.name)
    throw new UsageError(
      'wrong-module',
      `${path}: is the module ${info.name || '(unnamed)'}, not ${gate.name}`,
    );
  if (info.buildId === null && info.srcversion === null)
    throw new UsageError(
      'anonymous-module',
      `${path}: carries neither a build id nor a srcversion, so the guest cannot show that it was loaded: link it with --build-id`,
    );
  const wanted = (await readModule(stockModulePath(kernel, gate))).vermagic;
  if (!sameMagic(info.vermagic, wanted))
    throw new UsageError(
      'wrong-vermagic',
      `${path}: built for another kernel: its vermagic is "${info.vermagic}", ${kernel.id} needs "${wanted}"`,
    );
  // Without its headers a kernel offers at least what its own module wants.
  const tree = await ensureBuildTree(kernel, progress).catch((error: unknown) => {
    if (error instanceof LoopanicError && !(error instanceof InterruptedError)) return null;
    throw error;
  });
  const offered = tree === null ? null : await offeredSymbols(tree.headers);
  const stock = await wantedSymbols(stockModulePath(kernel, gate));
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
