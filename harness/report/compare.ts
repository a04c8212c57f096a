import type { RunCell, RunDocument } from '../results/run-schema.js';
import { differences } from '../verdict/judge-run.js';
import { cellName, missText, rateText, standing } from './cell-state.js';

/** What became of a cell between two runs; where more than one holds, the first. */
const CHANGES = [
  'verdict',
  'expectation',
  'only-before',
  'only-after',
  'scenario',
  'evidence',
  'rate',
  'build',
  'same',
] as const;

export interface CellChange {
  cell: string;
  change: (typeof CHANGES)[number];
  before: string | null;
  after: string | null;
  /** Somebody has to look: another verdict, a new contradiction, a cell that is gone. */
  alarm: boolean;
  /** One line. */
  text: string;
}

/**
 * What changed from one run to the next, cell by cell, gravest first. `scenario`: the cell is another experiment. `evidence`: the same
 * verdict rests on less, on another control, or on another host. `rate`: the 95 % intervals of the panic rates do not overlap. `build`:
 * kernel, module, image or scripts are others. A file under test is the same cell whatever its content is.
 */
export function compareRuns(before: RunDocument, after: RunDocument): CellChange[] {
  const [old, now] = [keyedCells(before), keyedCells(after)];
  const changes = [...new Set([...old.keys(), ...now.keys()])].map((key) =>
    compareCells(old.get(key), now.get(key), before, after),
  );
  return changes.sort((a, b) => CHANGES.indexOf(a.change) - CHANGES.indexOf(b.change));
}

/** Cells by name; the content hash of a file is left out where that leaves the name unique. */
export function keyedCells({ cells }: RunDocument): Map<string, RunCell> {
  const short = (cell: RunCell): string =>
    cellName({ ...cell, module: cell.module.replace(/@[0-9a-f]{8}$/, '') });
  const names = cells.map(short);
  return new Map(
    cells.map((cell, index) => {
      const name = names[index] ?? '';
      return [names.indexOf(name) === names.lastIndexOf(name) ? name : cellName(cell), cell];
    }),
  );
}

function compareCells(
  old: RunCell | undefined,
  now: RunCell | undefined,
  before: RunDocument,
  after: RunDocument,
): CellChange {
  const say = (change: CellChange['change'], text: string, alarm = false): CellChange => ({
    cell: now ? cellName(now) : old ? cellName(old) : '',
    change,
    before: old?.verdict ?? null,
    after: now?.verdict ?? null,
    alarm,
    text,
  });
  const told = (cell: RunCell): string => cell.verdict ?? 'not judged';
  if (!now) return say('only-before', `was ${old ? told(old) : ''}, and is not in the second run`, true);
  if (!old)
    return say(
      'only-after',
      `${told(now)}, and is not in the first run`,
      standing(now, after) === 'contradicted',
    );
  if (old.verdict !== now.verdict) return say('verdict', `${told(old)} -> ${told(now)}: ${now.reason}`, true);
  const graver = [...expectations(old, now), ...settings(old, now), ...evidence(old, now)];
  const found: Found = [...graver, ...host(before, after), ...rates(old, now), ...builds(old, now)];
  const [first] = found.sort(([a], [b]) => CHANGES.indexOf(a) - CHANGES.indexOf(b));
  if (!first) return say('same', `${told(now)} as before`);
  const contradicted = standing(now, after) === 'contradicted' && standing(old, before) !== 'contradicted';
  // The same word for another experiment, or for less, is not the same news.
  const alarm = contradicted || graver.some(([change]) => change !== 'expectation');
  return say(first[0], `${told(now)} as before; ${found.map(([, text]) => text).join('; ')}`, alarm);
}

type Found = [CellChange['change'], string][];

function expectations(old: RunCell, now: RunCell): Found {
  const [was, is] = [old.expected?.verdict ?? 'nothing', now.expected?.verdict ?? 'nothing'];
  return was === is ? [] : [['expectation', `expected ${is}, not ${was} any more`]];
}

/** Settings of the experiment, by name. */
function settings(old: RunCell, now: RunCell): Found {
  const { kernel, kernelInfo, image, scripts } = now;
  const found = differences(now, { ...old, kernel, kernelInfo, image, scripts });
  return found.length === 0 ? [] : [['scenario', `another experiment: ${found.join(', ')}`]];
}

/** What a verdict rests on now and did not before, or does not any more. */
function evidence(old: RunCell, now: RunCell): Found {
  const found: Found = [];
  const [a, b] = [old.statistics, now.statistics];
  if (now.verdict === 'clean') {
    if (old.control && !now.control)
      found.push(['evidence', `no positive control any more (${cellName(old.control)})`]);
    else if (old.control && now.control && cellName(old.control) !== cellName(now.control))
      found.push([
        'evidence',
        `another positive control: ${cellName(now.control)}, not ${cellName(old.control)}`,
      ]);
    const isRead = old.provenBy === 'reading' && now.provenBy === 'reading';
    if (old.provenBy === 'reading' && !isRead)
      found.push(['evidence', 'no reading of the gate shows it any more']);
    if (a && b && b.survived < a.survived && !isRead)
      found.push(['evidence', `${b.survived} survivors, not ${a.survived}`]);
    if (a && b && (b.missChance ?? 1) > (a.missChance ?? 1) && !isRead)
      found.push(['evidence', `wrong clean at most ${missText(now)}, not ${missText(old)}`]);
  }
  const warnings = now.warnings.filter((text) => !old.warnings.includes(text));
  if (warnings.length > 0) found.push(['evidence', `new warning: ${warnings.join('; ')}`]);
  return found;
}

function host(before: RunDocument, after: RunDocument): Found {
  const [was, is] = [before.host.accel, after.host.accel];
  return was === is ? [] : [['evidence', `under ${is}, not ${was}`]];
}

function rates(old: RunCell, now: RunCell): Found {
  const [a, b] = [old.statistics?.rate, now.statistics?.rate];
  return a && b && (a.high < b.low || b.high < a.low)
    ? [['rate', `panics ${rateText(old)} -> ${rateText(now)}`]]
    : [];
}

function builds(old: RunCell, now: RunCell): Found {
  const found: Found = [];
  const [a, b] = [old.kernelInfo, now.kernelInfo];
  if (a?.version !== b?.version) found.push(['build', `kernel ${a?.version} -> ${b?.version}`]);
  else if (a?.key !== b?.key) found.push(['build', 'another build of the kernel']);
  const identity = ({ moduleInfo }: RunCell): string | null | undefined =>
    moduleInfo?.buildId ?? moduleInfo?.srcversion;
  if (identity(old) !== identity(now)) found.push(['build', 'another build of the module']);
  if (old.image.key !== now.image.key) found.push(['build', 'another build of the image']);
  if (old.scripts !== now.scripts) found.push(['build', 'other scripts ran in the guest']);
  return found;
}
