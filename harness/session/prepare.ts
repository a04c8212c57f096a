import { readFile } from 'node:fs/promises';
import { cpus, hostname, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { UsageError } from '../base/errors.js';
import { packageRoot } from '../base/paths.js';
import type { Progress } from '../base/progress.js';
import { needProgram } from '../host/tools.js';
import { ensureCaptureArchive } from '../image/capture.js';
import { ensureImage, type GuestImage, imagePath } from '../image/image.js';
import { ensureModulesArchives } from '../image/kernel-modules.js';
import { ensureLun } from '../image/lun.js';
import { checkKernelId } from '../kernel/catalogue.js';
import { ensureKernel } from '../kernel/fetch.js';
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
  image: string;
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
): Promise<{ parts: CellParts[]; document: RunDocument }> {
  const parts: CellParts[] = [];
  let accel: AccelChoice | undefined;
  const image = await ensureImage(request.image, progress);
  for (const [index, cell] of request.cells.entries()) {
    const kernel = await ensureKernel(cell.kernel, progress);
    const module = await ensureModule(cell.module, kernel, progress, request.build, signal);
    accel ??= await chooseAccel(request.accel, kernel.vmlinuz);
    const scenario = loaded[index] as LoadedScenario;
    const modules = await ensureModulesArchives(kernel, image.modules);
    parts.push({
      kernel,
      module,
      loaded: scenario,
      accel: accel.accel,
      image,
      modules: modules.guest,
      capture: modules.capture && (await ensureCaptureArchive(image.capture, modules.capture)),
      lun: await ensureLun(scenario.scenario, kernel),
    });
  }
  const names = new Set<string>();
  for (const { kernel, module, loaded: entry } of parts) {
    const name = `${kernel.id} ${module.id} ${entry.scenario.name}`;
    if (names.has(name)) throw new UsageError('duplicate-cell', `the cell ${name} is there twice`);
    names.add(name);
  }
  const choice = accel ?? { accel: 'tcg', reason: 'no cell' };
  return { parts, document: await newDocument(request, id, choice, image, parts) };
}

/** Every name of every cell, before anything is fetched, built or booted. */
export async function checkNames(request: RunRequest): Promise<LoadedScenario[]> {
  await imagePath(request.image);
  const loaded: LoadedScenario[] = [];
  for (const cell of request.cells) {
    const entry = await loadScenario(cell.scenario);
    loaded.push({ ...entry, scenario: request.adjust?.(entry.scenario) ?? entry.scenario });
    await checkKernelId(cell.kernel);
    await checkModuleId(cell.module, await presentKernel(cell.kernel));
  }
  return loaded;
}

async function newDocument(
  request: RunRequest,
  id: string,
  accel: AccelChoice,
  image: GuestImage,
  parts: CellParts[],
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
    image: { name: image.name, key: image.key },
    confidence: request.confidence ?? null,
    retries: request.retries,
    cells: request.cells.map((cell, index) =>
      newCell(
        cell,
        request.trials,
        parts[index] as CellParts,
        cell.control === undefined ? null : nameOf(parts[cell.control] as CellParts),
      ),
    ),
  };
}

/** A cell's name, as run.json has it. */
function nameOf({ kernel, module, loaded }: CellParts): NonNullable<RunCell['control']> {
  return { kernel: kernel.id, module: module.id, scenario: loaded.scenario.name };
}

function newCell(cell: MatrixCell, trials: number, parts: CellParts, control: RunCell['control']): RunCell {
  const { kernel, module, loaded } = parts;
  const { name: _, ...definition } = loaded.scenario;
  return {
    ...nameOf(parts),
    control,
    statistics: null,
    verdict: null,
    reason: 'not run',
    warnings: [],
    ...(cell.expected ? { expected: cell.expected } : {}),
    kernelInfo: {
      release: kernel.release,
      version: kernel.version,
      origin: kernel.origin,
      packages: kernel.packages,
    },
    moduleInfo: {
      vermagic: module.info.vermagic,
      srcversion: module.info.srcversion,
      buildId: module.info.buildId,
    },
    scenarioDefinition: definition,
    wantedTrials: trials,
    durationSeconds: 0,
    trials: [],
  };
}
