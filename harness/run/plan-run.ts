import { bugOf } from '../bug/family.js';
import type { LoadedScenario } from '../scenario/scenario-schema.js';
import { survivorsNeeded } from '../verdict/statistics.js';
import { checkNames, type RunRequest } from './prepare.js';

/** What a run would do. */
export interface RunPlan {
  cells: {
    kernel: string;
    module: string;
    scenario: string;
    /** With `sequential` an estimate: until it panics, or so many survivors at least. Where the gate is read, one boot is. */
    boots: number;
    sequential: boolean;
    isControl: boolean;
    /** Its positive control: kernel+module+scenario. */
    control: string | null;
    expected: string | null;
    why: string | null;
  }[];
  /** One line: boots, time and disk. */
  total: string;
}

/** Seconds of a boot, as seen under TCG with a one-CPU guest on two cores; KVM is ten to twenty times as fast. */
const SECONDS = { panics: 20, clean: 36 };
/** Bytes of a dump that is kept, as seen. */
const DUMP_MIB = 45;

/**
 * The plan of a run, without making anything. Estimates take it that controls panic at every boot, that gates can be read, and that
 * expectations hold.
 */
export async function planRun(request: RunRequest): Promise<RunPlan> {
  const loaded = await checkNames(request);
  const { trials, confidence } = request;
  let [boots, seconds, dumps] = [0, 0, 0];
  const cells = request.cells.map((cell, index) => {
    const { scenario } = loaded[index] as LoadedScenario;
    const read =
      request.byReading === true &&
      confidence !== undefined &&
      scenario.readGate &&
      bugOf(scenario.bug).gateFunctions.length > 0;
    const panics = cell.isControl || cell.expected?.verdict === 'panics';
    const control = cell.control === undefined ? undefined : request.cells[cell.control];
    const sequential = cell.control !== undefined && confidence !== undefined;
    const alone = cell.control === undefined && !cell.isControl;
    const number = alone
      ? (request.uncontrolledTrials ?? trials)
      : read
        ? 1
        : !sequential
          ? trials
          : panics
            ? 1
            : (survivorsNeeded(trials, confidence)[trials] ?? trials);
    boots += number;
    seconds += number * (panics ? SECONDS.panics : SECONDS.clean);
    if (panics && request.keepDumps !== 'none' && request.dump !== 'none')
      dumps += request.keepDumps === 'all' ? number : 1;
    return {
      kernel: cell.kernel,
      module: cell.module,
      scenario: cell.scenario,
      boots: number,
      sequential,
      isControl: cell.isControl ?? false,
      control: control ? `${control.kernel}+${control.module}+${control.scenario}` : null,
      expected: cell.expected?.verdict ?? null,
      why: cell.expected?.why ?? null,
    };
  });
  const minutes = Math.ceil(seconds / 60);
  return {
    cells,
    total: `${cells.length} cells, about ${boots} boots: ${minutes} min under TCG (KVM: ${Math.ceil(minutes / 10)} min), ${dumps * DUMP_MIB} MiB of dumps`,
  };
}
