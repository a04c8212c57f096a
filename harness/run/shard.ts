import { UsageError } from '../base/errors.js';
import { contentKey } from '../base/files.js';
import type { MatrixCell } from '../scenario/load-matrix.js';

/** One of so many parts of a matrix. */
export interface Shard {
  part: number;
  of: number;
  /** Names the cells of the whole: on another host, or of another file, they may be others. */
  whole: string;
}

/** Reads `2/5`. Throws UsageError. */
export function parseShard(text: string): Omit<Shard, 'whole'> {
  const [, part = '', of = ''] = /^(\d{1,4})\/(\d{1,4})$/.exec(text) ?? [];
  const shard = { part: Number(part), of: Number(of) };
  if (shard.part < 1 || shard.part > shard.of)
    throw new UsageError('bad-usage', `--shard ${text}: is no part of a whole: 2/5 is the second of five`);
  return shard;
}

/** Names a list of cells. */
export function wholeOf(cells: readonly MatrixCell[]): string {
  return contentKey(...cells.map(({ kernel, module, scenario }) => `${kernel}+${module}+${scenario}`));
}

/**
 * The cells of one part. A control and all cells that rest on it are one piece, so that each part can be judged by itself; the pieces are
 * dealt out, the largest first, each to the part that has the fewest cells by then: every machine comes to the same parts. Empty where there
 * are more parts than pieces.
 */
export function shardOf(cells: readonly MatrixCell[], { part, of }: Omit<Shard, 'whole'>): MatrixCell[] {
  const pieces = new Map<number, number[]>();
  for (const [index, { control }] of cells.entries()) {
    const home = control ?? index;
    pieces.set(home, [...(pieces.get(home) ?? []), index]);
  }
  const sizes = Array.from({ length: of }, () => 0);
  const mine: number[] = [];
  for (const piece of [...pieces.values()].sort((a, b) => b.length - a.length)) {
    const least = sizes.indexOf(Math.min(...sizes));
    sizes[least] = (sizes[least] ?? 0) + piece.length;
    if (least === part - 1) mine.push(...piece);
  }
  // In the order of the matrix.
  mine.sort((a, b) => a - b);
  return mine.map((index) => {
    const { control, ...cell } = cells[index] as MatrixCell;
    return control === undefined ? cell : { ...cell, control: mine.indexOf(control) };
  });
}
