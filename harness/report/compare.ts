import type { RunCell, RunDocument } from '../results/run-schema.js';
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
 * What changed from one run to the next, cell by cell, gravest first. `scenario`: the cell is another experiment. `evidence`: the same verdict rests on less, or on another host. `rate`:
 * the 95 % intervals of the panic rates do not overlap. `build`: kernel, module or image is another build. A file under test is the same cell whatever its content is.
 */
export function compareRuns(before: RunDocument, after: RunDocument): CellChange[] {
  const [old, now] = [keyed(before), keyed(after)];
  const changes = [...new Set([...old.keys(), ...now.keys()])].map((key) =>
    compareCells(old.get(key), now.get(key), before, after),
  );
  return changes.sort((a, b) => CHANGES.indexOf(a.change) - CHANGES.indexOf(b.change));
}

/** Cells by name; the content hash of a file is left out where that leaves the name unique. */
function keyed({ cells }: RunDocument): Map<string, RunCell> {
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
    return say('only-after', `${told(now)}, and is not in the first run`, standing(now) === 'contradicted');
  if (old.verdict !== now.verdict) return say('verdict', `${told(old)} -> ${told(now)}: ${now.reason}`, true);
  const found: [CellChange['change'], string][] = [
    ...expectations(old, now),
    ...scenario(old, now),
    ...evidence(old, now),
    ...(before.host.accel === after.host.accel
      ? []
      : [
          ['evidence', `under ${after.host.accel}, not ${before.host.accel}`] as [
            CellChange['change'],
            string,
          ],
        ]),
    ...rates(old, now),
    ...builds(old, now),
  ];
  const [first] = found;
  if (!first) return say('same', `${told(now)} as before`);
  const alarm = standing(now) === 'contradicted' && standing(old) !== 'contradicted';
  return say(first[0], `${told(now)} as before; ${found.map(([, text]) => text).join('; ')}`, alarm);
}

type Found = [CellChange['change'], string][];

function expectations(old: RunCell, now: RunCell): Found {
  const [was, is] = [old.expected?.verdict ?? 'nothing', now.expected?.verdict ?? 'nothing'];
  return was === is ? [] : [['expectation', `expected ${is}, not ${was} any more`]];
}

function scenario(old: RunCell, now: RunCell): Found {
  const same = JSON.stringify(old.scenarioDefinition) === JSON.stringify(now.scenarioDefinition);
  if (!same) return [['scenario', 'the scenario says something else']];
  return old.scripts === now.scripts ? [] : [['scenario', 'other scripts ran in the guest']];
}

function evidence(old: RunCell, now: RunCell): Found {
  const found: Found = [];
  const [a, b] = [old.statistics, now.statistics];
  if (
    now.verdict === 'clean' &&
    a &&
    b &&
    (b.survived < a.survived || (b.missChance ?? 1) > (a.missChance ?? 1))
  )
    found.push([
      'evidence',
      `${b.survived} survivors, not ${a.survived} (chance of a miss ${missText(now)}, not ${missText(old)})`,
    ]);
  const warnings = now.warnings.filter((text) => !old.warnings.includes(text));
  if (warnings.length > 0) found.push(['evidence', `new warning: ${warnings.join('; ')}`]);
  return found;
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
  return found;
}
