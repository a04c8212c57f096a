import { writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { InterruptedError, UsageError } from '../base/errors.js';
import { contentKey, scratchDir } from '../base/files.js';
import type { Progress } from '../base/progress.js';
import type { GateModule } from '../bug/bug.js';
import { buildKernel, lastBuildSeconds } from '../kernel/build-kernel.js';
import { type Kernel, stockModulePath } from '../kernel/kernel.js';
import { codeKey } from '../kernel/module-code.js';
import { diffText, type Patch } from './patch-file.js';
import { reachOf } from './sources.js';

/** A kernel that was built with somebody's patches, and the same without them. */
export interface PatchedKernel {
  kernel: string;
  without: string;
  /** The module's code is another by the patches: then the built kernel's own is meant. */
  changesModule: boolean;
}

/** Says what patches of more than one module take, and how long that is. */
export async function refuseWithoutKernel(file: string, from: string, foreign: string[]): Promise<never> {
  const last = await lastBuildSeconds(from);
  const long =
    last === null
      ? 'a quarter of an hour on two cores'
      : `the last one from ${from} took ${Math.ceil(last / 60)} min here`;
  throw new UsageError(
    'foreign-patch',
    `${file}: changes ${foreign.join(', ')}, which no exchanged module brings along: this takes another kernel; --build-kernel builds it (${long}) and validates on that`,
  );
}

/**
 * Builds a Debian kernel with all patches of a file or series, and the same without, unless they were built before. Throws UsageError if they
 * do not apply or compile, or if they take files away or move them.
 */
export async function ensurePatchedKernel(
  file: string,
  { from, gate }: { from: string; gate: GateModule },
  progress: Progress,
  signal: AbortSignal,
): Promise<PatchedKernel> {
  const { patches } = await reachOf(file, gate);
  for (const { name, changes } of patches)
    for (const { path, whole } of changes)
      if (whole === 'deleted' || whole === 'renamed')
        throw new UsageError('foreign-patch', `${file}: ${name}: ${path} is ${whole}: this is not taken`);
  const texts = patches
    .filter(({ changes }) => changes.length > 0)
    .map((patch) => ({ patch, text: textOf(patch) }));
  const key = contentKey(...texts.map(({ text }) => text)).slice(0, 8);
  const name = basename(file).replace(/\.(patch|diff|mbox|mail|eml|txt)?(\.(gz|xz|zst|bz2))?$/i, '');
  const without = `${from}-rebuilt`;
  const kernel = `${from}-${name.replace(/[^\w.-]/g, '-').slice(0, 40)}-${key}`;
  await using scratch = await scratchDir('series');
  const files: string[] = [];
  for (const [index, { patch, text }] of texts.entries()) {
    const place = join(scratch.path, `${String(index + 1).padStart(4, '0')}-${slug(patch)}.patch`);
    await writeFile(place, text, 'latin1');
    files.push(place);
  }
  // What does not compile is known before a quarter of an hour is spent on the other.
  const built = await buildKernel({ from, patches: files, id: kernel }, progress, signal).catch(
    (error: unknown) => {
      if (!(error instanceof UsageError)) throw error;
      // By the name that its user knows.
      throw new UsageError(error.code, error.message.replaceAll(`${scratch.path}/`, `${file}: `), error);
    },
  );
  if (signal.aborted) throw new InterruptedError();
  const plain = await buildKernel({ from, patches: [], id: without }, progress, signal);
  const code = (of: Kernel): Promise<string> => codeKey(stockModulePath(of, gate));
  return { kernel, without, changesModule: (await code(built)) !== (await code(plain)) };
}

/** As patch(1) takes it, whatever the file looked like. */
function textOf({ changes }: Patch): string {
  return diffText(changes.map(({ path, hunks }) => ({ place: path, hunks })));
}

function slug({ name, subject }: Patch): string {
  return (subject ?? name)
    .replace(/\[[^\]]*\]\s*/g, '')
    .replace(/\.(patch|diff)$/, '')
    .replace(/[^A-Za-z0-9]+/g, '-')
    .slice(0, 50);
}
