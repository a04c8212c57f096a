import type { RunCell, RunDocument } from '../results/run-schema.js';
import { cellName, rateText } from './cell-state.js';

/** What became of a cell between two runs. */
export interface CellChange {
  cell: string;
  change: 'verdict' | 'only-before' | 'only-after' | 'build' | 'rate' | 'same';
  before: string | null;
  after: string | null;
  /** One line. */
  text: string;
}

/**
 * What changed from one run to the next, cell by cell. `build`: same verdict, but kernel, module or image is another build. `rate`: the 95 % intervals of the panic rates do
 * not overlap.
 */
export function compareRuns(before: RunDocument, after: RunDocument): CellChange[] {
  const names = [...new Set([...before.cells, ...after.cells].map(cellName))];
  return names.map((name) => {
    const find = (run: RunDocument): RunCell | undefined => run.cells.find((cell) => cellName(cell) === name);
    return compareCells(name, find(before), find(after));
  });
}

function compareCells(cell: string, old: RunCell | undefined, now: RunCell | undefined): CellChange {
  const [before, after] = [old?.verdict ?? null, now?.verdict ?? null];
  const say = (change: CellChange['change'], text: string): CellChange => ({
    cell,
    change,
    before,
    after,
    text,
  });
  if (!now) return say('only-before', `was ${before}, and is not in the second run`);
  if (!old) return say('only-after', `${after}, and is not in the first run`);
  if (before !== after) return say('verdict', `${before} -> ${after}: ${now.reason}`);
  const builds: string[] = [];
  if (old.kernelInfo?.version !== now.kernelInfo?.version)
    builds.push(`kernel ${old.kernelInfo?.version} -> ${now.kernelInfo?.version}`);
  const identity = (entry: RunCell): string | null | undefined =>
    entry.moduleInfo?.buildId ?? entry.moduleInfo?.srcversion;
  if (identity(old) !== identity(now)) builds.push('another build of the module');
  if (old.image.key !== now.image.key) builds.push('another build of the image');
  const [a, b] = [old.statistics?.rate, now.statistics?.rate];
  if (a && b && (a.high < b.low || b.high < a.low))
    return say('rate', `panics ${rateText(old)} -> ${rateText(now)}`);
  if (builds.length > 0) return say('build', `${after} as before; ${builds.join(', ')}`);
  return say('same', `${after} as before`);
}
