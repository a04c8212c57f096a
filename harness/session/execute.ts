import { readFile } from 'node:fs/promises';
import { cpus, hostname, release, totalmem } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { execa } from 'execa';
import { firstLine, interruptible, UsageError } from '../base/errors.js';
import { sweepScratch } from '../base/files.js';
import { packageRoot } from '../base/paths.js';
import type { Progress } from '../base/progress.js';
import { needProgram } from '../host/tools.js';
import { ensureCaptureArchive } from '../image/capture.js';
import { ensureModulesArchives } from '../image/kernel-modules.js';
import { ensureLun } from '../image/lun.js';
import { ensureUserland, userlandPath } from '../image/userland.js';
import { checkKernelId } from '../kernel/catalogue.js';
import { ensureKernel } from '../kernel/fetch.js';
import { presentKernel } from '../kernel/store.js';
import type { BuildOptions } from '../module/build.js';
import { checkModuleId, ensureModule } from '../module/module.js';
import { RunFolder } from '../results/run-folder.js';
import type { RunCell, RunDocument, RunTrial } from '../results/run-schema.js';
import type { MatrixCell } from '../scenario/load-matrix.js';
import { loadScenario } from '../scenario/load-scenario.js';
import type { LoadedScenario, Scenario } from '../scenario/scenario-schema.js';
import { type CellParts, type DumpMethod, newSeed, planTrial } from '../trial/plan.js';
import { type Attendance, runTrial } from '../trial/run-trial.js';
import { judgeCell } from '../verdict/cell-verdict.js';
import { type AccelChoice, chooseAccel } from '../vm/accel.js';
import type { Accel } from '../vm/qemu-args.js';
import { afterCrash, type KeepDumps } from './after-crash.js';

/** What a command wants to be run. */
export interface RunRequest {
  command: string;
  cells: MatrixCell[];
  image: string;
  trials: number;
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

export interface RunResult {
  document: RunDocument;
  folder: string;
}

/**
 * Prepares and runs all trials of all cells, one after the other. Names are checked and every part is built before the first VM boots;
 * run.json is saved after every trial. Throws UsageError for bad input and InfraError if a part cannot be had.
 */
export async function executeRun(
  request: RunRequest,
  signal: AbortSignal,
  progress: Progress,
): Promise<RunResult> {
  await sweepScratch();
  const loaded = await checkNames(request);
  for (const program of ['qemu-system-x86_64', 'setpriv', 'cpio'] as const) await needProgram(program);
  const folder = await RunFolder.create(request.results, dumpBytes(request, loaded));
  const { parts, document } = await interruptible(
    prepare(request, folder.id, loaded, progress, signal),
    signal,
  ).catch(async (error: unknown) => {
    await folder.discard();
    throw error;
  });
  const started = performance.now();
  const seconds = (from: number): number => Math.round(performance.now() - from) / 1000;
  await folder.save(document);
  for (const [index, cell] of document.cells.entries()) {
    const cellStarted = performance.now();
    for (let number = 1; number <= cell.wantedTrials && !signal.aborted; number++) {
      const relative = await folder.trial(cell, number);
      const plan = planTrial(
        parts[index] as CellParts,
        number,
        request.seed === undefined ? newSeed() : request.seed + number - 1,
        request.dump,
      );
      const title = `${cell.kernel} ${cell.module} ${cell.scenario} trial ${number}/${cell.wantedTrials}`;
      const outcome = await progress.step(title, (update) =>
        runTrial(
          plan,
          join(folder.path, relative),
          signal,
          { onStatus: update, ...(request.onConsole ? { onConsole: request.onConsole } : {}) },
          request.attendance,
        ),
      );
      const trial: RunTrial = { ...outcome, folder: relative, dump: null, analysis: null };
      cell.trials.push(trial);
      judge(cell, seconds(cellStarted));
      // Saved before the dump is looked at: the outcome is known, whatever comes of that.
      await folder.save(document);
      const earlier = cell.trials.some(({ dump }) => dump?.kept);
      const keep = request.keepDumps === 'all' || (request.keepDumps === 'first' && !earlier);
      const { kernel } = parts[index] as CellParts;
      const { receiver } = plan.scenario;
      try {
        Object.assign(
          trial,
          await afterCrash({ kernel, dir: join(folder.path, relative), receiver, keep }, progress, signal),
        );
      } catch (error) {
        progress.line(`the dump could not be looked at: ${firstLine(error)}`);
      }
      judge(cell, seconds(cellStarted));
      Object.assign(document, { durationSeconds: seconds(started) });
      await folder.save(document);
    }
  }
  Object.assign(document, {
    finishedAt: new Date().toISOString(),
    interrupted: isInterrupted(request, document, signal),
  });
  await folder.save(document);
  return { document, folder: folder.path };
}

/** Part of a guest's memory that its filtered dump takes: 4 % was seen; a busy guest has more. */
const DUMP_SHARE = 0.2;

/** Bytes of dumps that a run may leave if every trial crashes. One more than is kept is on disk while it is analysed. */
function dumpBytes(request: RunRequest, loaded: LoadedScenario[]): number {
  if (request.dump === 'none') return 0;
  const kept = { all: request.trials, first: 1, none: 0 }[request.keepDumps];
  // Twice: the crash kernel's flattened stream, and the dump made of it.
  const one = (entry: LoadedScenario): number => entry.scenario.vm.memoryMiB * 2 ** 20 * DUMP_SHARE;
  const most = Math.max(0, ...loaded.map(one));
  return loaded.reduce((sum, entry) => sum + kept * one(entry), 0) + 2 * most;
}

function judge(cell: RunCell, durationSeconds: number): void {
  Object.assign(cell, judgeCell(cell.trials, cell.wantedTrials), { durationSeconds });
  // A panic with another cause must never be sold as the sought one.
  for (const { trial, outcome, analysis } of cell.trials)
    if (outcome === 'reproduced' && analysis?.sought === 'no')
      cell.warnings.push(`trial ${trial}: its dump: ${analysis.text}`);
}

/** A person's kept guest is ended by a signal too: if its trial was over, that interrupted nothing. */
function isInterrupted({ attendance }: RunRequest, { cells }: RunDocument, signal: AbortSignal): boolean {
  const over = cells.every(
    (cell) => cell.trials.length === cell.wantedTrials && !cell.trials.some((trial) => trial.interrupted),
  );
  return signal.aborted && !(attendance !== undefined && over);
}

/** Fetches and builds everything that the run needs. */
async function prepare(
  request: RunRequest,
  id: string,
  loaded: LoadedScenario[],
  progress: Progress,
  signal: AbortSignal,
): Promise<{ parts: CellParts[]; document: RunDocument }> {
  const parts: CellParts[] = [];
  let accel: AccelChoice | undefined;
  const userland = await ensureUserland(request.image, progress);
  for (const [index, cell] of request.cells.entries()) {
    const kernel = await ensureKernel(cell.kernel, progress);
    const module = await ensureModule(cell.module, kernel, progress, request.build, signal);
    accel ??= await chooseAccel(request.accel, kernel.vmlinuz);
    const scenario = loaded[index] as LoadedScenario;
    const modules = await ensureModulesArchives(kernel);
    parts.push({
      kernel,
      module,
      loaded: scenario,
      accel: accel.accel,
      userland: userland.archive,
      modules: modules.guest,
      capture: modules.capture && (await ensureCaptureArchive(userland.capture, modules.capture)),
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
  return { parts, document: await newDocument(request, id, choice, userland.archive, parts) };
}

/** Every name of every cell, before anything is fetched, built or booted. */
async function checkNames(request: RunRequest): Promise<LoadedScenario[]> {
  await userlandPath(request.image);
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
  userland: string,
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
    image: { name: request.image, key: basename(dirname(userland)) },
    cells: request.cells.map((cell, index) => newCell(cell, request.trials, parts[index] as CellParts)),
  };
}

function newCell(cell: MatrixCell, trials: number, parts: CellParts): RunCell {
  const { kernel, module, loaded } = parts;
  const { name: _, ...definition } = loaded.scenario;
  return {
    kernel: kernel.id,
    module: module.id,
    scenario: loaded.scenario.name,
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
