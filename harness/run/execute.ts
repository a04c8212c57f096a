import { join } from 'node:path';
import { firstLine, interruptible, UsageError } from '../base/errors.js';
import { sweepScratch } from '../base/files.js';
import type { Progress } from '../base/progress.js';
import { soughtBy } from '../bug/sought.js';
import { needProgram } from '../host/tools.js';
import { RunFolder } from '../results/run-folder.js';
import type { RunCell, RunDocument, RunTrial } from '../results/run-schema.js';
import type { LoadedScenario } from '../scenario/scenario-schema.js';
import { type CellParts, filesOf, newSeed, planTrial } from '../trial/plan.js';
import { runTrial } from '../trial/run-trial.js';
import { judgeInRun, survivorsWanted } from '../verdict/judge-run.js';
import { needsAnother } from '../verdict/stopping.js';
import { afterCrash } from './after-crash.js';
import { checkNames, type PreparedCell, prepare, type RunRequest } from './prepare.js';
import { adoptTrials } from './resume.js';

export interface RunResult {
  document: RunDocument;
  folder: string;
}

/**
 * Prepares and runs all trials of all cells: positive controls first, as many cells at a time as `jobs` says, the trials of a cell one
 * after the other. Names are checked and every part is built before the first VM boots; run.json is saved after every trial. Throws
 * UsageError for bad input and InfraError if a part cannot be had.
 */
export async function executeRun(
  request: RunRequest,
  signal: AbortSignal,
  progress: Progress,
): Promise<RunResult> {
  await sweepScratch();
  const loaded = await checkNames(request);
  checkMemory(request, loaded);
  for (const program of ['qemu-system-x86_64', 'setpriv', 'cpio'] as const) await needProgram(program);
  const folder =
    request.resume === undefined
      ? await RunFolder.create(request.results, dumpBytes(request, loaded))
      : await RunFolder.open(request.results, request.resume);
  await using _lock = await folder.lock();
  const { prepared, document } = await interruptible(
    prepare(request, folder.id, loaded, progress, signal),
    signal,
  ).catch(async (error: unknown) => {
    if (request.resume === undefined) await folder.discard();
    throw error;
  });
  if (request.resume !== undefined) await adoptTrials(folder, document, progress);
  const session = new Session(request, prepared, document, folder, signal, progress);
  await session.run();
  return { document, folder: folder.path };
}

/** One run's way through its cells. */
class Session {
  readonly #request: RunRequest;
  readonly #prepared: readonly PreparedCell[];
  readonly #document: RunDocument;
  readonly #folder: RunFolder;
  readonly #signal: AbortSignal;
  readonly #progress: Progress;
  readonly #started: number;
  #saving: Promise<void> = Promise.resolve();
  /** Of any worker: then none begins another trial. */
  readonly #failures: unknown[] = [];

  constructor(
    request: RunRequest,
    prepared: readonly PreparedCell[],
    document: RunDocument,
    folder: RunFolder,
    signal: AbortSignal,
    progress: Progress,
  ) {
    this.#request = request;
    this.#prepared = prepared;
    this.#document = document;
    this.#folder = folder;
    this.#signal = signal;
    this.#progress = progress;
    // A run that is gone on with has taken its time before.
    this.#started = performance.now() - document.durationSeconds * 1000;
  }

  async run(): Promise<void> {
    for (const cell of this.#document.cells)
      if (cell.unmade !== null || cell.trials.length > 0) this.#judge(cell);
    await this.#save();
    const cells = this.#prepared.flatMap(({ cell, parts }) => (parts ? [{ cell, parts }] : []));
    const dependent = ({ cell }: { cell: RunCell }): boolean => cell.control !== null;
    for (const group of [cells.filter((entry) => !dependent(entry)), cells.filter(dependent)])
      await this.#inParallel(group, async ({ cell, parts }) => {
        await this.#lookAgain(cell, parts);
        await this.#runCell(cell, parts);
      });
    Object.assign(this.#document, {
      finishedAt: new Date().toISOString(),
      interrupted: this.#isInterrupted(),
    });
    await this.#save();
  }

  /** Works through a queue with as many workers as there are jobs. After a failure nothing new is begun, and it is thrown when all are done. */
  async #inParallel<T>(queue: T[], work: (item: T) => Promise<void>): Promise<void> {
    const failures = this.#failures;
    const worker = async (): Promise<void> => {
      while (failures.length === 0) {
        const item = queue.shift();
        if (item === undefined) return;
        await work(item).catch((error: unknown) => failures.push(error));
      }
    };
    await Promise.all(Array.from({ length: this.#request.jobs ?? 1 }, worker));
    if (failures.length > 0) throw failures[0];
  }

  /** Trials until the cell is decided, or cannot be within its budget of trials that fail around the guest. */
  async #runCell(cell: RunCell, parts: CellParts): Promise<void> {
    const started = performance.now() - cell.durationSeconds * 1000;
    const judged = (): void => {
      this.#aim(cell);
      this.#judge(cell);
      cell.durationSeconds = Math.round(performance.now() - started) / 1000;
    };
    judged();
    while (!this.#signal.aborted && this.#failures.length === 0 && this.#needsAnother(cell)) {
      const number = cell.trials.length + 1;
      await this.#runTrial(cell, parts, number, judged);
    }
    await this.#save();
  }

  /** Dumps of adopted trials that nobody came to look at before the run was cut off. */
  async #lookAgain(cell: RunCell, parts: CellParts): Promise<void> {
    for (const trial of cell.trials) if (trial.dump === null) await this.#lookAtDump(cell, parts, trial);
  }

  /** Sets how many survivors the cell needs, now that its control is known. */
  #aim(cell: RunCell): void {
    const { confidence, byReading } = this.#request;
    // Of a control that was cut short nothing is known yet.
    if (confidence === undefined || cell.control === null || this.#signal.aborted) return;
    // One that leaks may need some luck to panic, too.
    if (byReading && cell.expected?.verdict === 'panics') return;
    const wanted = survivorsWanted({ ...this.#document, confidence }, cell);
    if (wanted === null || wanted === cell.wantedTrials) return;
    cell.wantedTrials = wanted;
    if (wanted > MANY_BOOTS)
      this.#progress.line(
        `${cell.kernel} ${cell.module} ${cell.scenario}: its positive control panicked so seldom that ${wanted} survivors are needed: --trials gives it more boots`,
      );
  }

  #needsAnother(cell: RunCell): boolean {
    return needsAnother(this.#document, cell);
  }

  #judge(cell: RunCell): void {
    Object.assign(cell, judgeInRun(this.#document, cell));
  }

  async #runTrial(cell: RunCell, parts: CellParts, number: number, judged: () => void): Promise<void> {
    const request = this.#request;
    const relative = await this.#folder.trial(cell, number);
    const dir = join(this.#folder.path, relative);
    const seed = request.seed === undefined ? newSeed() : request.seed + number - 1;
    const plan = planTrial(parts, number, seed, request.dump);
    const title = `${cell.kernel} ${cell.module} ${cell.scenario} trial ${number}/${Math.max(number, cell.wantedTrials)}`;
    const outcome = await this.#progress.step(
      title,
      (update) =>
        runTrial(
          plan,
          filesOf(parts),
          dir,
          this.#signal,
          { onStatus: update, ...(request.onConsole ? { onConsole: request.onConsole } : {}) },
          request.attendance,
        ),
      ({ outcome }) => outcome,
    );
    const { host, versions } = this.#document;
    const trial: RunTrial = {
      ...outcome,
      folder: relative,
      host: { name: host.hostname, qemu: versions.qemu },
      dump: null,
      analysis: null,
    };
    cell.trials.push(trial);
    judged();
    // Saved before the dump is looked at: the outcome is known, whatever comes of that.
    await this.#save();
    await this.#lookAtDump(cell, parts, trial);
    judged();
    await this.#save();
  }

  /** Analyses a trial's dump, if there is one, and keeps it or not. */
  async #lookAtDump(cell: RunCell, { kernel, loaded }: CellParts, trial: RunTrial): Promise<void> {
    const { keepDumps } = this.#request;
    const earlier = cell.trials.some(({ dump }) => dump?.kept);
    const keep = keepDumps === 'all' || (keepDumps === 'first' && !earlier);
    const dir = join(this.#folder.path, trial.folder);
    const crash = { kernel, dir, sought: soughtBy(loaded.scenario), keep };
    try {
      Object.assign(trial, await afterCrash(crash, this.#progress, this.#signal));
    } catch (error) {
      this.#progress.line(`the dump could not be looked at: ${firstLine(error)}`);
    }
  }

  /** One after the other, so that what is on disk last is what was known last. */
  #save(): Promise<void> {
    this.#document.durationSeconds = Math.round(performance.now() - this.#started) / 1000;
    const saved = this.#saving.then(() => this.#folder.save(this.#document));
    this.#saving = saved.catch(() => {});
    return saved;
  }

  /** A person's kept guest is ended by a signal too: if its trial was over, that interrupted nothing. */
  #isInterrupted(): boolean {
    const over = this.#document.cells.every(
      (cell) =>
        cell.trials.length > 0 &&
        !this.#needsAnother(cell) &&
        !cell.trials.some((trial) => trial.interrupted),
    );
    return this.#signal.aborted && !(this.#request.attendance !== undefined && over);
  }
}

/** Boots of one cell that its user should hear of before they are made. */
const MANY_BOOTS = 30;

/** Part of a guest's memory that its filtered dump takes: 4 % was seen; a busy guest has more. */
const DUMP_SHARE = 0.2;

/** Bytes of dumps that a run may leave if every trial crashes. One more than is kept is on disk while it is analysed, for each job. */
function dumpBytes(request: RunRequest, loaded: LoadedScenario[]): number {
  if (request.dump === 'none') return 0;
  const kept = { all: request.trials, first: 1, none: 0 }[request.keepDumps];
  // Twice: the crash kernel's flattened stream, and the dump made of it.
  const one = (entry: LoadedScenario): number => entry.scenario.vm.memoryMiB * 2 ** 20 * DUMP_SHARE;
  const most = Math.max(0, ...loaded.map(one));
  return loaded.reduce((sum, entry) => sum + kept * one(entry), 0) + 2 * most * (request.jobs ?? 1);
}

/** Guests that run at a time must fit into this host's free memory, or the kernel would end some of them. */
function checkMemory({ jobs = 1 }: RunRequest, loaded: LoadedScenario[]): void {
  const mib = ({ scenario }: LoadedScenario): number =>
    scenario.vm.memoryMiB * (scenario.where === 'peer' ? 2 : 1);
  const guests = Math.min(jobs, loaded.length);
  const needed = guests * Math.max(0, ...loaded.map(mib));
  // Within the limits of a container, too.
  const free = Math.floor(process.availableMemory() / 2 ** 20);
  if (jobs > 1 && needed > free)
    throw new UsageError(
      'bad-usage',
      `--jobs ${jobs}: ${guests} guests need ${needed} MiB, and ${free} MiB are free on this host`,
    );
}
