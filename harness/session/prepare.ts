import { readFile } from 'node:fs/promises';
import { cpus, hostname, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { firstLine, UsageError } from '../base/errors.js';
import { packageRoot } from '../base/paths.js';
import type { Progress } from '../base/progress.js';
import { needProgram } from '../host/tools.js';
import { ensureCaptureArchive } from '../image/capture.js';
import { ensureImage, type GuestImage, imagePath } from '../image/image.js';
import { ensureModulesArchives } from '../image/kernel-modules.js';
import { ensureLun } from '../image/lun.js';
import { checkKernelId } from '../kernel/catalogue.js';
import { ensureKernel } from '../kernel/fetch.js';
import type { Kernel } from '../kernel/kernel.js';
import { presentKernel } from '../kernel/store.js';
import type { BuildOptions } from '../module/build.js';
import { checkModuleId, ensureModule } from '../module/module.js';
import type { RunCell, RunDocument } from '../results/run-schema.js';
import type { MatrixCell } from '../scenario/load-matrix.js';
import { loadScenario } from '../scenario/load-scenario.js';
import type { LoadedScenario, Scenario } from '../scenario/scenario-schema.js';
import type { CellParts, DumpMethod } from '../trial/plan.js';
import type { Attendance } from '../trial/run-trial.js';
import { type AccelChoice, chooseAccel } from '../vm/accel.js';
import type { Accel } from '../vm/qemu-args.js';
import type { KeepDumps } from './after-crash.js';

/** What a command wants to be run. */
export interface RunRequest {
  command: string;
  cells: MatrixCell[];
  /** Instead of the scenario's own, or minimal. */
  image: string | undefined;
  /** Run to go on with, by its id or folder. */
  resume?: string | undefined;
  /** A cell whose module cannot be made is inconclusive, and the others are run. */
  tolerant?: boolean;
  /** Kernels that were left out, and why. */
  skipped?: { kernel: string; why: string }[];
  /** Boots of a cell; with `confidence`, those of a positive control. */
  trials: number;
  /** A cell with a positive control is booted until a module as bad as the control would have been caught with this probability. */
  confidence?: number;
  /** Trials of a cell that may fail around the guest (infra-error, no-boot) and are then tried again. */
  retries: number;
  dump: DumpMethod;
  keepDumps: KeepDumps;
  results: string;
  accel: 'auto' | Accel;
  build: BuildOptions;
  /** Seed of the first trial's workload; the next trials count on from it. Without it each trial draws its own. */
  seed?: number;
  /** Changes what the scenario file says. */
  adjust?: (scenario: Scenario) => Scenario;
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
): Promise<{ parts: CellSlot[]; document: RunDocument }> {
  const parts: CellSlot[] = [];
  let accel: AccelChoice | undefined;
  for (const [index, cell] of request.cells.entries()) {
    const entry = loaded[index] as LoadedScenario;
    const image = await ensureImage(imageOf(request, entry), progress);
    const kernel = await ensureKernel(cell.kernel, progress);
    accel ??= await chooseAccel(request.accel, kernel.vmlinuz);
    const slot = { kernel, loaded: entry, image };
    try {
      const module = await ensureModule(cell.module, kernel, progress, request.build, signal);
      const modules = await ensureModulesArchives(kernel, image.modules);
      const capture = modules.capture && (await ensureCaptureArchive(image.capture, modules.capture));
      const lun = await ensureLun(entry.scenario, kernel);
      parts.push({
        ...slot,
        cell: { ...slot, module, accel: accel.accel, modules: modules.guest, capture, lun },
      });
    } catch (error) {
      if (!request.tolerant || !(error instanceof UsageError)) throw error;
      progress.line(`${cell.kernel} ${cell.module} ${entry.scenario.name}: ${firstLine(error)}`);
      parts.push({ ...slot, cell: null, module: cell.module, why: firstLine(error) });
    }
  }
  const names = new Set<string>();
  for (const slot of parts) {
    const name = Object.values(nameOf(slot)).join(' ');
    if (names.has(name)) throw new UsageError('duplicate-cell', `the cell ${name} is there twice`);
    names.add(name);
  }
  const choice = accel ?? { accel: 'tcg', reason: 'no cell' };
  return { parts, document: await newDocument(request, id, choice, parts) };
}

/** What a cell is made of, or why it cannot be. */
export type CellSlot = { kernel: Kernel; loaded: LoadedScenario; image: GuestImage } & (
  | { cell: CellParts }
  | { cell: null; module: string; why: string }
);

const DEFAULT_IMAGE = 'minimal';
const imageOf = (request: RunRequest, { scenario }: LoadedScenario): string =>
  request.image ?? scenario.image ?? DEFAULT_IMAGE;

/** Every name of every cell, before anything is fetched, built or booted. */
export async function checkNames(request: RunRequest): Promise<LoadedScenario[]> {
  const loaded: LoadedScenario[] = [];
  for (const cell of request.cells) {
    const entry = await loadScenario(cell.scenario);
    loaded.push({ ...entry, scenario: request.adjust?.(entry.scenario) ?? entry.scenario });
    await imagePath(imageOf(request, entry));
    await checkKernelId(cell.kernel);
    await checkModuleId(cell.module, await presentKernel(cell.kernel));
  }
  return loaded;
}

async function newDocument(
  request: RunRequest,
  id: string,
  accel: AccelChoice,
  parts: CellSlot[],
): Promise<RunDocument> {
  const { stdout } = await execa(await needProgram('qemu-system-x86_64'), ['--version']);
  const { version } = JSON.parse(await readFile(join(packageRoot, 'package.json'), 'utf8')) as {
    version: string;
  };
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
    versions: { loopanic: version, node: process.versions.node, qemu: stdout.split('\n')[0] ?? '' },
    confidence: request.confidence ?? null,
    retries: request.retries,
    skipped: request.skipped ?? [],
    cells: request.cells.map((cell, index) => {
      const control = cell.control === undefined ? null : nameOf(parts[cell.control] as CellSlot);
      return newCell(cell, request.trials, parts[index] as CellSlot, control);
    }),
  };
}

/** A cell's name, as run.json has it. */
function nameOf(slot: CellSlot): NonNullable<RunCell['control']> {
  const { kernel, loaded } = slot;
  return {
    kernel: kernel.id,
    module: slot.cell?.module.id ?? (slot as { module: string }).module,
    scenario: loaded.scenario.name,
  };
}

function newCell(cell: MatrixCell, trials: number, slot: CellSlot, control: RunCell['control']): RunCell {
  const { kernel, loaded, image } = slot;
  const { name: _, ...definition } = loaded.scenario;
  const info = slot.cell?.module.info;
  return {
    ...nameOf(slot),
    control,
    statistics: null,
    verdict: slot.cell ? null : 'inconclusive',
    reason: slot.cell ? 'not run' : `the module cannot be made: ${slot.why}`,
    warnings: [],
    ...(cell.expected ? { expected: cell.expected } : {}),
    kernelInfo: {
      release: kernel.release,
      version: kernel.version,
      origin: kernel.origin,
      packages: kernel.packages,
    },
    moduleInfo: info ? { vermagic: info.vermagic, srcversion: info.srcversion, buildId: info.buildId } : null,
    image: { name: image.name, key: image.key },
    scenarioDefinition: definition,
    wantedTrials: trials,
    durationSeconds: 0,
    trials: [],
  };
}
