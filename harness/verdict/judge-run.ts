import { codeText } from '../module/identity.js';
import { DEFAULT_CONFIDENCE } from './boots.js';
import {
  type CellGoal,
  type CellJudgement,
  type CellStatistics,
  type ControlResult,
  type JudgedTrial,
  judgeCell,
  wantedBoots,
} from './cell-verdict.js';
import { controlLacks } from './gate-proof.js';
import type { Verdict } from './verdict.js';

/** What of a cell its verdict follows from. */
export interface CellRecord {
  kernel: string;
  module: string;
  scenario: string;
  /** Its positive control, another cell of the run. */
  control: { kernel: string; module: string; scenario: string } | null;
  isControl: boolean;
  /** Why it cannot be made; null if it can. */
  unmade: string | null;
  wantedTrials: number;
  kernelInfo: {
    key: string;
    freelistRandom: boolean;
    builtOf: string | null;
    packages: readonly unknown[];
  } | null;
  image: { key: string };
  moduleInfo: { sameCodeAs: string | null } | null;
  scripts: string;
  scenarioDefinition: Record<string, unknown> | null;
  trials: readonly JudgedTrial[];
}

/** What of a run its verdicts follow from. */
export interface RunRecord<Cell extends CellRecord = CellRecord> {
  cells: readonly Cell[];
  confidence: number | null;
  /** A reading of the gate is proof, and statistics stand in where there is none. */
  request: { byReading: boolean };
}

/** The positive control of a cell, if it has one. */
export function controlOf<Cell extends CellRecord>({ cells }: RunRecord<Cell>, cell: Cell): Cell | undefined {
  const { control } = cell;
  return control === null
    ? undefined
    : cells.find(
        (other) =>
          other.kernel === control.kernel &&
          other.module === control.module &&
          other.scenario === control.scenario,
      );
}

/**
 * What is to be known of a cell from its trials and its control's: the same whether the run goes on, is resumed, or is read years later.
 */
export function judgeInRun<Cell extends CellRecord>(run: RunRecord<Cell>, cell: Cell): CellJudgement {
  const judgement = judged(run, cell);
  const same = cell.moduleInfo?.sameCodeAs ?? null;
  if (same === null || cell.trials.length === 0) return judgement;
  const text = codeText({ sameCodeAs: same, comparedWith: [] }) ?? '';
  const warnings = same === 'stock' ? [...judgement.warnings, text] : judgement.warnings;
  return { ...judgement, reason: `${judgement.reason}; ${text}`, warnings };
}

function judged<Cell extends CellRecord>(run: RunRecord<Cell>, cell: Cell): CellJudgement {
  const control = controlOf(run, cell);
  const goal: CellGoal = {
    trials: cell.wantedTrials,
    confidence: run.confidence ?? DEFAULT_CONFIDENCE,
    byReading: run.request.byReading,
    isControl: cell.isControl,
    control: control && control.trials.length > 0 ? resultOf(run, control, cell) : null,
  };
  const judgement = judgeCell(cell.trials, goal);
  judgement.warnings.push(...mixedQemus(cell, control));
  const other = (verdict: Verdict, reason: string): CellJudgement => ({
    ...judgement,
    verdict,
    reason,
    warnings: [],
    provenBy: null,
  });
  if (judgement.verdict === 'panics' || judgement.verdict === 'exposed') return judgement;
  if (cell.unmade !== null) return other('inconclusive', `it cannot be made: ${cell.unmade}`);
  if (control?.unmade != null)
    return other('void', `its positive control was not tried: it cannot be made: ${control.unmade}`);
  // Nothing is clean before its control has shown that it could have panicked.
  if (cell.control !== null && goal.control === null && judgement.verdict === 'clean')
    return other('inconclusive', 'its positive control was not run');
  // A kernel that deals its free lists in a fixed order (no SLAB_FREELIST_RANDOM) draws little that is new at a boot.
  if (
    judgement.verdict === 'clean' &&
    judgement.provenBy === 'statistics' &&
    cell.kernelInfo?.freelistRandom === false
  )
    judgement.warnings.push(
      "this kernel's slabs hand objects out in a fixed order: its boots may repeat one another, and the guarantee is for boots that do not",
    );
  return judgement;
}

/** Survivors that a cell needs, now that its control is known; null while it is not, and where no number would do. */
export function survivorsWanted<Cell extends CellRecord>(
  run: RunRecord<Cell> & { confidence: number },
  cell: Cell,
): number | null {
  const control = controlOf(run, cell);
  if (!control || control.trials.length === 0) return null;
  const { statistics, differs } = resultOf(run, control, cell);
  if (run.request.byReading && controlLacks(statistics.gate) === null) {
    // One boot is proof, if it has a reading; a few more are made for those that have none, though there could be one.
    const unread = cell.trials.filter(
      ({ outcome, gate }) => outcome === 'survived' && (gate === null ? differs.length === 0 : gate.lost > 0),
    );
    return 1 + Math.min(MORE_BOOTS, unread.length);
  }
  return wantedBoots(statistics, run.confidence);
}

/** Boots that are made again for a reading that lost something. */
const MORE_BOOTS = 2;

/** True of a positive control that needs no more boots: it panicked, and its reading shows that every kind of page goes through. */
export function isShown(run: RunRecord, control: CellRecord): boolean {
  const { panicked, gate } = statisticsOf(run, control);
  return run.request.byReading && panicked > 0 && controlLacks(gate) === null;
}

function resultOf<Cell extends CellRecord>(run: RunRecord<Cell>, control: Cell, cell: Cell): ControlResult {
  return { statistics: statisticsOf(run, control), differs: differences(cell, control) };
}

function statisticsOf({ confidence, request }: RunRecord, control: CellRecord): CellStatistics {
  return judgeCell(control.trials, {
    trials: control.wantedTrials,
    confidence: confidence ?? DEFAULT_CONFIDENCE,
    byReading: request.byReading,
    isControl: true,
    control: null,
  }).statistics;
}

/** Settings, beside the module under test, in which a cell is another experiment than its control: `kernel.slubMaxOrder (0, not unset)`. */
export function differences(cell: CellRecord, control: CellRecord): string[] {
  const found: string[] = [];
  const patched = isBuiltLike(cell.kernelInfo, control.kernelInfo);
  if (!patched && cell.kernel !== control.kernel)
    found.push(`the kernel (${cell.kernel}, not ${control.kernel})`);
  else if (!patched && cell.kernelInfo?.key !== control.kernelInfo?.key)
    found.push('the build of the kernel');
  if (cell.image.key !== control.image.key) found.push('the guest image');
  const [accel, others] = [accelsOf(cell), accelsOf(control)];
  if (accel !== '' && others !== '' && accel !== others)
    found.push(`the accelerator (${accel}, not ${others})`);
  const [own, other] = [settings(cell.scenarioDefinition), settings(control.scenarioDefinition)];
  const thresholds: string[] = [];
  for (const name of new Set([...own.keys(), ...other.keys()])) {
    // What people call it changes nothing.
    if (name === 'summary' || own.get(name) === other.get(name)) continue;
    (name.startsWith('workload.min') ? thresholds : found).push(
      `${name} (${own.get(name) ?? 'unset'}, not ${other.get(name) ?? 'unset'})`,
    );
  }
  if (cell.scripts !== control.scripts && own.get('workload.name') === other.get('workload.name'))
    found.push('the scripts that run in the guest');
  // How much work counts as a trial: of two different experiments it is a part.
  return found.length > 0 ? found : thresholds;
}

/** True of a kernel that loopanic built of the same source with the same configuration as the control's, which has no patches: they are what is tried. */
function isBuiltLike(own: CellRecord['kernelInfo'], control: CellRecord['kernelInfo']): boolean {
  return own?.builtOf != null && own.builtOf === control?.builtOf && control.packages.length === 1;
}

/** What the boots of a cell that tell something ran on. */
function accelsOf({ trials }: CellRecord): string {
  const told = trials.filter(({ outcome }) => outcome !== 'infra-error');
  return [...new Set(told.map(({ accel }) => accel))].sort().join(' and ');
}

/** Where the boots of a cell and of its control ran under more than one QEMU. */
function mixedQemus(cell: CellRecord, control: CellRecord | undefined): string[] {
  const trials = [...cell.trials, ...(control?.trials ?? [])];
  const qemus = new Set(trials.flatMap(({ host }) => host?.qemu ?? []));
  const whose = control ? "its boots and its control's" : 'its boots';
  return qemus.size < 2 ? [] : [`${whose} ran under different QEMUs: ${[...qemus].sort().join('; ')}`];
}

/** A scenario as flat names and values: `filesystem.sectorSize` → `512`. */
function settings(definition: Record<string, unknown> | null, prefix = ''): Map<string, string> {
  const flat = new Map<string, string>();
  for (const [name, value] of Object.entries(definition ?? {}))
    if (value !== null && typeof value === 'object' && !Array.isArray(value))
      for (const [inner, text] of settings(value as Record<string, unknown>, `${prefix}${name}.`))
        flat.set(inner, text);
    else if (value !== undefined)
      flat.set(`${prefix}${name}`, Array.isArray(value) ? value.join(' ') : `${value}`);
  return flat;
}
