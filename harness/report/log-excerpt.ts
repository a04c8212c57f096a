import { join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { readGiven } from '../base/given-file.js';
import type { RunTrial } from '../results/run-schema.js';

/** A line of a trial's console. */
export interface ExcerptLine {
  number: number;
  text: string;
  /** It is what the outcome rests on. */
  marked: boolean;
}

const BEFORE = 6;
const AFTER = 4;
const MOST = 80;
/** No log of a trial is larger (trial/conclude.ts). */
const MOST_MIB = 65;

/** A part of a trial's log. */
export interface Excerpt {
  file: string;
  /** Empty if the log is not there any more. */
  lines: ExcerptLine[];
}

/** The lines of a trial's console around what its outcome rests on, or its last lines. */
export async function logExcerpt(runFolder: string, trial: RunTrial): Promise<Excerpt> {
  const cited = trial.evidence.length > 0 ? trial.evidence : trial.warnings;
  const file = cited[0]?.file ?? 'serial.log';
  const text = await readGiven(join(runFolder, trial.folder, file), MOST_MIB).then(String, () => null);
  if (text === null) return { file, lines: [] };
  const lines = text.split('\n').map((line) => stripVTControlCharacters(line.replace(/\r$/, '')));
  const marks = new Set(cited.filter((entry) => entry.file === file).map(({ line }) => line));
  const [first, last] = [...marks].reduce<[number, number]>(
    ([low, high], line) => [Math.min(low, line), Math.max(high, line)],
    [Number.POSITIVE_INFINITY, 0],
  );
  const from = marks.size > 0 ? Math.max(1, first - BEFORE) : Math.max(1, lines.length - 12);
  const to = Math.min(lines.length, marks.size > 0 ? last + AFTER : lines.length, from + MOST - 1);
  const excerpt: ExcerptLine[] = [];
  for (let number = from; number <= to; number++)
    excerpt.push({ number, text: lines[number - 1] ?? '', marked: marks.has(number) });
  return { file, lines: excerpt };
}
