import { cpus, hostname, release, totalmem } from 'node:os';
import { resolve } from 'node:path';
import { firstLine, InterruptedError, LoopanicError, UsageError } from '../base/errors.js';
import { isFile } from '../base/paths.js';
import type { Progress } from '../base/progress.js';
import { bugOf, targetOf } from '../bug/family.js';
import { ensureCaptureArchive } from '../image/capture.js';
import { ensureImage, type GuestImage, imagePath } from '../image/image.js';
import { ensureModulesArchives } from '../image/kernel-modules.js';
import { ensureLun, mkfsOptions } from '../image/lun.js';
import { checkKernelId } from '../kernel/catalogue.js';
import { ensureKernel } from '../kernel/fetch.js';
import type { Kernel } from '../kernel/kernel.js';
import { presentKernel } from '../kernel/store.js';
import type { BuildOptions } from '../module/build-options.js';
import { checkModuleId, ensureModule, moduleRecord } from '../module/module.js';
import { RULES, type RunCell, type RunDocument } from '../results/run-schema.js';
import type { MatrixCell } from '../scenario/load-matrix.js';
import { loadScenario } from '../scenario/load-scenario.js';
import type { LoadedScenario, Scenario } from '../scenario/scenario-schema.js';
import { type CellParts, type DumpMethod, guestModules } from '../trial/plan.js';
import type { Attendance } from '../trial/run-trial.js';
import { survivorsNeeded } from '../verdict/statistics.js';
import { type AccelChoice, chooseAccel } from '../vm/accel.js';
import type { Accel } from '../vm/qemu-args.js';
import type { KeepDumps } from './after-crash.js';
import { cellKey, programKey, programVersion, qemuVersion, scriptsKey } from './cell-key.js';
import type { Jobs } from './jobs.js';
import type { Shard } from './shard.js';

/** What a command wants to be run. */
export interface RunRequest {
  command: string;
  cells: MatrixCell[];
  /** Instead of the scenario's own, or minimal. */
  image: string | undefined;
  /** Run to go on with, by its id or folder. */
  resume?: string | undefined;
  /** A cell whose kernel or module cannot be had is inconclusive, and the others are run. */
  tolerant?: boolean;
  /** The matrix file that the cells are from. */
  matrix?: { name: string; file: string; shard: Shard | null };
  /** Kernels that were left out, and why. */
  skipped?: { kernel: string; why: string }[];
  /** Boots of a cell; with `confidence`, those of a positive control. */
  trials: number;
  /** Boots of a cell that neither has a positive control nor is one; default: `trials`. */
  uncontrolledTrials?: number;
  /** A cell with a positive control is booted until it has as many survivors as this confidence takes. */
  confidence?: number;
  /** A reading of the gate is proof of `clean`: `confidence` is for cells that have none. */
  byReading?: boolean;
  /** Every cell must have a control, or be expected to panic: its confidence was asked for. */
  needControls?: boolean;
  /** A cell of which nothing is expected may panic without being a failure. */
  noExpectationOk?: boolean;
  /** Trials of a cell that may fail around the guest (infra-error, no-boot) and are then tried again. */
  retries: number;
  /** Cells that are run at a time; default 1. */
  jobs?: Jobs;
  dump: DumpMethod;
  keepDumps: KeepDumps;
  results: string;
  accel: 'auto' | Accel;
  /** What guests run on, if that is not to be found out of this host. */
  chosen?: AccelChoice;
  build: BuildOptions;
  /** Seed of the first trial's workload; the next trials count on from it. Without it each trial draws its own. */
  seed?: number;
  /** Changes what the scenario file says; `options` is how the command line says so. */
  adjust?: { scenario: (scenario: Scenario) => Scenario; options: readonly string[] };
  attendance?: Attendance;
  onConsole?: (chunk: Buffer) => void;
}

/** Fetches and builds everything that the run needs. */
export async function prepare(
  request: RunRequest,
  id: string,
  loaded: LoadedScenario[],
  progress: Progress,
  signal: AbortSignal,
): Promise<{ prepared: PreparedCell[]; document: RunDocument }> {
  const slots: CellSlot[] = [];
  let accel: AccelChoice | undefined;
  for (const [index, cell] of request.cells.entries()) {
    const entry = loaded[index] as LoadedScenario;
    const image = await ensureImage(imageOf(request, entry), progress);
    const slot = { kernelId: cell.kernel, moduleId: cell.module, loaded: entry, image };
    let kernel: Kernel | null = null;
    try {
      kernel = await ensureKernel(cell.kernel, progress);
      accel ??= request.chosen ?? (await chooseAccel(request.accel, kernel.vmlinuz));
      const bug = bugOf(entry.scenario.bug);
      checkFitness(kernel, bug.id);
      const place = { kernel, gate: bug.module };
      const module = await ensureModule(cell.module, place, progress, request.build, signal);
      const modules = await ensureModulesArchives(
        kernel,
        guestModules(kernel, entry.scenario),
        image.modules,
      );
      const capture = modules.capture && (await ensureCaptureArchive(image.capture, modules.capture));
      const { ownStorage } = targetOf(entry.scenario.target);
      const lun = ownStorage ? null : await ensureLun(entry.scenario, kernel);
      const mkfs = ownStorage ? mkfsOptions(entry.scenario, kernel, GUEST_MKFS) : [];
      const parts = { module, accel: accel.accel, modules: modules.guest, capture, lun, mkfs };
      const scripts = await scriptsKey(scriptsOf({ loaded: entry, image }));
      const made = { ...parts, kernel, loaded: entry, image, scripts };
      const key = await cellKey(made, request.dump);
      slots.push({ ...slot, kernel, cell: { ...made, key } });
    } catch (error) {
      if (!request.tolerant || !(error instanceof LoopanicError) || error instanceof InterruptedError)
        throw error;
      progress.line(`${cell.kernel} ${cell.module} ${entry.scenario.name}: ${firstLine(error)}`);
      slots.push({ ...slot, kernel, cell: null, why: firstLine(error) });
    }
  }
  const names = new Set<string>();
  for (const slot of slots) {
    const name = Object.values(nameOf(slot)).join(' ');
    if (names.has(name)) throw new UsageError('duplicate-cell', `the cell ${name} is there twice`);
    names.add(name);
  }
  const choice = accel ?? { accel: 'tcg', reason: 'no cell' };
  const document = await newDocument(request, id, choice, slots);
  const prepared = document.cells.map((cell, index) => ({ cell, parts: slots[index]?.cell ?? null }));
  return { prepared, document };
}

/** A cell of a run, and what it is made of; null if that cannot be had. */
export interface PreparedCell {
  cell: RunCell;
  parts: CellParts | null;
}

/** What a cell is made of, or why it cannot be. */
type CellSlot = {
  kernelId: string;
  moduleId: string;
  loaded: LoadedScenario;
  image: GuestImage;
  kernel: Kernel | null;
} & ({ cell: CellParts } | { cell: null; why: string });

const scriptsOf = ({ loaded, image }: Pick<CellParts, 'loaded' | 'image'>) => ({
  imageScript: image.guestScript,
  workload: loaded.workloadDir,
});

const DEFAULT_IMAGE = 'minimal';
/** Version of xfsprogs in the images that make their file system themselves (Debian 12). */
const GUEST_MKFS = [6, 1] as const;

/** Throws UsageError if a kernel's configuration lacks what a bug needs, unless the kernel was added in spite of it. */
function checkFitness({ id, profile, forced }: Kernel, bug: string): void {
  const why = profile.unfitFor[bug];
  if (why && forced.length === 0)
    throw new UsageError('unfit-kernel', `kernel ${id} cannot show ${bug}: ${why.join('; ')}`);
}

const imageOf = (request: RunRequest, { scenario }: LoadedScenario): string =>
  request.image ?? scenario.image ?? targetOf(scenario.target).image ?? DEFAULT_IMAGE;

/** Every name of every cell, before anything is fetched, built or booted. */
export async function checkNames(request: RunRequest): Promise<LoadedScenario[]> {
  const loaded: LoadedScenario[] = [];
  for (const cell of request.cells) {
    const entry = await loadScenario(cell.scenario);
    loaded.push({ ...entry, scenario: request.adjust?.scenario(entry.scenario) ?? entry.scenario });
    await imagePath(imageOf(request, entry));
    await checkKernelId(cell.kernel);
    await checkModuleId(cell.module, await presentKernel(cell.kernel), bugOf(entry.scenario.bug).module);
  }
  checkControls(request, loaded);
  return loaded;
}

/** A control that is so small that it would take more survivors than this even at best is a mistake. */
const MOST_SURVIVORS_AT_BEST = 100;

/**
 * A control's panic rate says something of a cell only if both run the same workload, the cell's no shorter; and --confidence rests on
 * that rate.
 */
function checkControls(
  { cells, confidence, needControls, matrix, trials }: RunRequest,
  loaded: LoadedScenario[],
): void {
  const named = ({ kernel, module, scenario }: MatrixCell): string => `${kernel} ${module} ${scenario}`;
  const best = confidence === undefined ? 1 : survivorsNeeded(trials, confidence)[trials];
  if (cells.some(({ control }) => control !== undefined) && (best == null || best > MOST_SURVIVORS_AT_BEST))
    throw new UsageError(
      'bad-usage',
      `--confidence ${confidence}: even if all ${trials} boots of a positive control panic, ${best ?? 'more than 1000'} boots of every other cell are needed: raise --trials, or ask for less`,
    );
  const where = matrix ? `${matrix.file}: controls: ` : '';
  for (const [index, cell] of cells.entries()) {
    if (cell.control === undefined) {
      // A panic proves itself.
      if (needControls && !cell.isControl && cell.expected?.verdict !== 'panics')
        throw new UsageError(
          'no-control',
          `${where}${named(cell)} has no positive control, and without its panic rate --confidence ${confidence} means nothing`,
        );
      continue;
    }
    const control = cells[cell.control] as MatrixCell;
    const [own, other] = [loaded[index], loaded[cell.control]];
    // Whether pairs must be merged is what some cells are about.
    const told = (entry: LoadedScenario | undefined): string => {
      // How it is to do it, too: a negative control leaves out the one step that matters.
      const { cycles: _, minPerCycle: __, args: ___, ...work } = entry?.scenario.workload ?? {};
      return JSON.stringify([entry?.workloadDir, work]);
    };
    const [cycles = 0, least = 0] = [own, other].map((entry) => entry?.scenario.workload.cycles);
    if (told(own) !== told(other) || cycles < least)
      throw new UsageError(
        'foreign-control',
        `${where}${named(cell)} runs another workload than its positive control ${named(control)} (name, shuffling, and at least its ${least} cycles): the control's panic rate says nothing of it`,
      );
  }
}

async function newDocument(
  request: RunRequest,
  id: string,
  accel: AccelChoice,
  slots: CellSlot[],
): Promise<RunDocument> {
  return {
    schemaVersion: 1,
    run: id,
    command: request.command,
    startedAt: new Date().toISOString(),
    resumedAt: [],
    finishedAt: null,
    durationSeconds: 0,
    interrupted: false,
    host: {
      hostname: hostname(),
      kernel: release(),
      cpus: cpus().length,
      memoryMiB: Math.floor(totalmem() / 2 ** 20),
      accel: accel.accel,
      accelReason: accel.reason,
    },
    rules: RULES,
    versions: {
      loopanic: await programVersion(),
      code: await programKey(),
      node: process.versions.node,
      qemu: await qemuVersion(),
    },
    matrix: request.matrix ?? null,
    mergedFrom: [],
    request: {
      trials: request.trials,
      dump: request.dump,
      seed: request.seed ?? null,
      byReading: request.byReading ?? false,
      noExpectationOk: request.noExpectationOk ?? false,
    },
    confidence: request.confidence ?? null,
    retries: request.retries,
    skipped: request.skipped ?? [],
    cells: await Promise.all(
      request.cells.map((cell, index) => {
        const control = cell.control === undefined ? null : nameOf(slots[cell.control] as CellSlot);
        return newCell(cell, request, slots[index] as CellSlot, control);
      }),
    ),
  };
}

/** A cell's name, as run.json has it. */
function nameOf(slot: CellSlot): NonNullable<RunCell['control']> {
  return {
    kernel: slot.kernelId,
    module: slot.cell?.module.id ?? slot.moduleId,
    scenario: slot.loaded.scenario.name,
  };
}

async function newCell(
  cell: MatrixCell,
  request: RunRequest,
  slot: CellSlot,
  control: RunCell['control'],
): Promise<RunCell> {
  const { kernel, loaded, image } = slot;
  const { name: _, ...definition } = loaded.scenario;
  return {
    ...nameOf(slot),
    key: slot.cell?.key ?? '',
    unmade: slot.cell ? null : slot.why,
    control,
    isControl: cell.isControl ?? false,
    statistics: null,
    provenBy: null,
    verdict: null,
    reason: 'not run',
    warnings: [],
    ...(cell.expected ? { expected: cell.expected } : {}),
    kernelInfo: kernel && {
      key: kernel.key,
      release: kernel.release,
      version: kernel.version,
      origin: kernel.origin,
      packages: kernel.packages,
      builtOf: kernel.built?.base || null,
      freelistRandom: kernel.profile.freelistRandom,
    },
    moduleInfo: slot.cell ? moduleRecord(slot.cell.module) : null,
    image: { name: image.name, key: image.key },
    scripts: slot.cell?.scripts ?? (await scriptsKey(scriptsOf(slot))),
    repeat: repeatArguments(cell, request, image.name),
    scenarioDefinition: definition,
    wantedTrials:
      control === null && !cell.isControl ? (request.uncontrolledTrials ?? request.trials) : request.trials,
    durationSeconds: 0,
    trials: [],
  };
}

/** `run` with all that decides what the guest is. Files are named by their full path. */
function repeatArguments(cell: MatrixCell, request: RunRequest, image: string): string[] {
  const file = (id: string): string => (isFile(id) ? resolve(id) : id);
  return [
    ...['run', file(cell.scenario), '--kernel', cell.kernel, '--module', file(cell.module)],
    ...(image === DEFAULT_IMAGE ? [] : ['--image', image]),
    ...(request.adjust?.options ?? []),
    ...(request.dump === 'kdump' ? [] : ['--dump', request.dump]),
    ...(request.accel === 'auto' ? [] : ['--accel', request.accel]),
  ];
}
