import { constants } from 'node:fs';
import { cp, mkdir, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { UsageError } from '../base/errors.js';
import { contradictionIn } from './check-run.js';
import { RunFolder } from './run-folder.js';
import type { RunDocument } from './run-schema.js';

/**
 * One run of several, such as the shards of a matrix: their cells, with logs and dumps, in a new folder below `results`. Each cell was run with its
 * control on one host, so what follows for it follows as before. Throws UsageError if they do not belong together, or if one is missing, is
 * not finished or holds a cell of another's.
 */
export async function mergeRuns(
  results: string,
  names: readonly string[],
): Promise<{ document: RunDocument; folder: string }> {
  const folders = await Promise.all(names.map((name) => RunFolder.open(results, name)));
  const runs = await Promise.all(folders.map((folder) => folder.read()));
  const [first] = runs;
  if (!first || runs.length < 2) throw new UsageError('bad-usage', 'merge: give two runs at least');
  checkBelonging(runs, first);
  const sizes = await Promise.all(folders.map((folder) => bytesOf(folder.path)));
  const target = await RunFolder.create(
    results,
    sizes.reduce((sum, size) => sum + size, 0),
  );
  try {
    await mkdir(join(target.path, 'cells'), { mode: 0o700 });
    for (const folder of folders)
      for (const name of await readdir(join(folder.path, 'cells')).catch(() => []))
        await cp(join(folder.path, 'cells', name), join(target.path, 'cells', name), {
          recursive: true,
          errorOnExist: true,
          force: false,
          // Where the file system can, without a copy of the dumps.
          mode: constants.COPYFILE_FICLONE,
        });
    const document = merged(runs, first, target.id);
    const wrong = contradictionIn(document);
    if (wrong !== null) throw new UsageError('bad-run', `these runs do not go together: ${wrong}`);
    await target.save(document);
    return { document, folder: target.path };
  } catch (error) {
    await target.discard();
    throw error;
  }
}

function checkBelonging(runs: readonly RunDocument[], first: RunDocument): void {
  const refuse = (why: string): UsageError => new UsageError('bad-usage', `merge: ${why}`);
  const seen = new Map<string, string>();
  for (const run of runs) {
    if (run.finishedAt === null || run.interrupted)
      throw refuse(`${run.run} is not finished: go on with it (--resume), or run it again`);
    for (const [what, of] of [
      ['of another matrix', ({ matrix }: RunDocument) => matrix?.name ?? null],
      ['by another loopanic', ({ versions }: RunDocument) => [versions.loopanic, versions.code]],
      ['of another request', ({ request: { seed: _, ...rest } }: RunDocument) => rest],
      ['of another confidence', ({ confidence }: RunDocument) => confidence],
      ['with another number of retries', ({ retries }: RunDocument) => retries],
      ['in another number of parts', ({ matrix }: RunDocument) => matrix?.shard?.of ?? null],
      ['of other cells', ({ matrix }: RunDocument) => matrix?.shard?.whole ?? null],
    ] as const)
      if (JSON.stringify(of(run)) !== JSON.stringify(of(first)))
        throw refuse(`${run.run} is ${what} than ${first.run}`);
    for (const { kernel, module, scenario } of run.cells) {
      const name = `${kernel} ${module} ${scenario}`;
      const other = seen.get(name);
      if (other !== undefined) throw refuse(`the cell ${name} is in ${other} and in ${run.run}`);
      seen.set(name, run.run);
    }
  }
  const parts = runs.flatMap(({ matrix }) => (matrix?.shard ? [matrix.shard.part] : []));
  const of = first.matrix?.shard?.of ?? 0;
  const missing = Array.from({ length: of }, (_, index) => index + 1).filter((part) => !parts.includes(part));
  if (missing.length > 0) throw refuse(`shard ${missing.join(', ')} of ${of} is not given`);
}

function merged(runs: readonly RunDocument[], first: RunDocument, id: string): RunDocument {
  const times = (of: (run: RunDocument) => string | null): string[] =>
    runs.flatMap((run) => of(run) ?? []).sort();
  const skipped = new Map(runs.flatMap((run) => run.skipped.map((entry) => [entry.kernel, entry] as const)));
  const cells = runs.flatMap((run) => run.cells);
  // One that a shard left out because it has no cells of it is none that was left out.
  for (const { kernel } of cells) skipped.delete(kernel);
  return {
    ...first,
    run: id,
    startedAt: times(({ startedAt }) => startedAt)[0] ?? first.startedAt,
    finishedAt: times(({ finishedAt }) => finishedAt).at(-1) ?? null,
    resumedAt: runs.flatMap(({ resumedAt }) => resumedAt).sort(),
    durationSeconds: runs.reduce((sum, run) => sum + run.durationSeconds, 0),
    matrix: first.matrix && { ...first.matrix, shard: null },
    skipped: [...skipped.values()],
    mergedFrom: runs.map(({ run, host, versions, matrix, cells: own }) => ({
      run,
      shard: matrix?.shard ? `${matrix.shard.part}/${matrix.shard.of}` : null,
      hostname: host.hostname,
      accel: host.accel,
      qemu: versions.qemu,
      cells: own.length,
    })),
    cells,
  };
}

async function bytesOf(dir: string): Promise<number> {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile());
  const sizes = await Promise.all(files.map((entry) => stat(join(entry.parentPath, entry.name))));
  return sizes.reduce((sum, { size }) => sum + size, 0);
}
