import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pLimit from 'p-limit';
import { firstLine, interruptible, UsageError } from '../base/errors.js';
import { sweepScratch } from '../base/files.js';
import type { Progress } from '../base/progress.js';
import { soughtBy } from '../bug/sought.js';
import { GUEST_PROGRAMS, needProgram } from '../host/tools.js';
import { RunFolder } from '../results/run-folder.js';
import type { RunCell, RunDocument, RunTrial } from '../results/run-schema.js';
import type { LoadedScenario } from '../scenario/scenario-schema.js';
import { type CellParts, newSeed, planTrial } from '../trial/plan.js';
import { needsAnother } from '../verdict/stopping.js';
import type { AccelChoice } from '../vm/accel.js';
import { afterCrash } from './after-crash.js';
import { jobsThatFit, type Need, needOf } from './jobs.js';
import { checkNames, type PreparedCell, prepare, type RunRequest } from './prepare.js';
import { adoptTrials } from './resume.js';
import { LocalRunner, type Place, type Runner } from './runner.js';
import { judge, workThrough } from './work-through.js';

export interface RunResult {
  document: RunDocument;
  folder: string;
}

/**
 * Prepares and runs all trials of all cells: positive controls first, as many cells at a time as `jobs` says or as `connect` has room for, the
 * trials of a cell one after the other. Names are checked and every part is built before the first VM boots; run.json is saved after every
 * trial. `connect` is called for the run's folder once names are known to be right; without it trials run here. Throws UsageError for bad
 * input and InfraError if a part cannot be had.
 */
export async function executeRun(
  request: RunRequest,
  signal: AbortSignal,
  progress: Progress,
  connect?: (run: string, earlier: AccelChoice['accel'] | null) => Promise<Runner>,
): Promise<RunResult> {
  await sweepScratch();
  const loaded = await checkNames(request);
  const jobs = connect ? 1 : jobsOf(request, loaded);
  for (const program of GUEST_PROGRAMS) await needProgram(program);
  const folder =
    request.resume === undefined
      ? await RunFolder.create(request.results, dumpBytes(request, loaded, jobs))
      : await RunFolder.open(request.results, request.resume);
  await using _lock = await folder.lock();
  let runner: Runner | undefined;
  try {
    const { prepared, document } = await interruptible(
      (async () => {
        const earlier = request.resume === undefined ? null : (await folder.read()).host.accel;
        runner = await connect?.(folder.id, earlier);
        const { accel } = runner ?? {};
        return prepare(accel ? { ...request, chosen: accel } : request, folder.id, loaded, progress, signal);
      })(),
      signal,
    ).catch(async (error: unknown) => {
      if (request.resume === undefined) await folder.discard();
      throw error;
    });
    if (request.resume !== undefined) await adoptTrials(folder, document, progress);
    const { host, versions } = document;
    const here = { name: host.hostname, qemu: versions.qemu };
    runner ??= new LocalRunner(jobs, here, request.attendance);
    await new Session(request, prepared, document, folder, runner, signal, progress).run();
    return { document, folder: folder.path };
  } finally {
    await runner?.end();
  }
}

/** One run's way through its cells. */
class Session {
  readonly #request: RunRequest;
  readonly #prepared: readonly PreparedCell[];
  readonly #document: RunDocument;
  readonly #folder: RunFolder;
  readonly #runner: Runner;
  readonly #signal: AbortSignal;
  readonly #progress: Progress;
  readonly #started: number;
  #saving: Promise<void> = Promise.resolve();
  #nextSave: Promise<void> | undefined;
  #lastSaveMs = 0;
  /** Analyses take a program and memory of this host each, wherever the guests were. */
  readonly #analyses = pLimit(availableParallelism());
  /** What is said of a dump is said once for all. */
  readonly #quietly: Progress;

  constructor(
    request: RunRequest,
    prepared: readonly PreparedCell[],
    document: RunDocument,
    folder: RunFolder,
    runner: Runner,
    signal: AbortSignal,
    progress: Progress,
  ) {
    this.#request = request;
    this.#prepared = prepared;
    this.#document = document;
    this.#folder = folder;
    this.#runner = runner;
    this.#signal = signal;
    this.#progress = progress;
    const told = new Set<string>();
    this.#quietly = {
      ...progress,
      line: (text) => {
        if (!told.has(text)) progress.line(text);
        told.add(text);
      },
    };
    // A run that is gone on with has taken its time before.
    this.#started = performance.now() - document.durationSeconds * 1000;
  }

  async run(): Promise<void> {
    for (const cell of this.#document.cells)
      if (cell.unmade !== null || cell.trials.length > 0) judge(this.#document, cell);
    await this.#save();
    const parts = new Map(
      this.#prepared.flatMap((entry) => (entry.parts ? [[entry.cell, entry.parts]] : [])),
    );
    const partsOf = (cell: RunCell): CellParts => parts.get(cell) as CellParts;
    const halted = new AbortController();
    const waits = AbortSignal.any([this.#signal, halted.signal]);
    await workThrough(this.#document, [...parts.keys()], {
      slots: this.#runner.slots,
      confidence: this.#request.confidence,
      byReading: this.#request.byReading ?? false,
      isStopped: () => this.#signal.aborted,
      begin: (cell) => this.#lookAgain(cell, partsOf(cell)),
      trial: async (cell, isAwaited, judged) => {
        const place = await this.#runner.place({ parts: partsOf(cell), isAwaited }, waits);
        if (place === null) return false;
        try {
          await this.#runTrial(cell, partsOf(cell), place, judged);
        } finally {
          place.release();
        }
        return true;
      },
      halt: () => halted.abort(),
      aimed: (cell) => this.#tellOfMany(cell),
      finished: () => this.#save(),
    });
    Object.assign(this.#document, {
      finishedAt: new Date().toISOString(),
      interrupted: this.#isInterrupted(),
    });
    await this.#save();
  }

  /** Dumps of adopted trials that nobody came to look at before the run was cut off. */
  async #lookAgain(cell: RunCell, parts: CellParts): Promise<void> {
    for (const trial of cell.trials) if (trial.dump === null) await this.#lookAtDump(cell, parts, trial);
  }

  #tellOfMany({ wantedTrials, kernel, module, scenario }: RunCell): void {
    if (wantedTrials > MANY_BOOTS)
      this.#progress.line(
        `${kernel} ${module} ${scenario}: its positive control panicked so seldom that ${wantedTrials} survivors are needed: --trials gives it more boots`,
      );
  }

  async #runTrial(cell: RunCell, parts: CellParts, place: Place, judged: () => void): Promise<void> {
    const request = this.#request;
    const number = cell.trials.length + 1;
    const relative = await this.#folder.trial(cell, number);
    const dir = join(this.#folder.path, relative);
    const seed = request.seed === undefined ? newSeed() : request.seed + number - 1;
    const plan = { ...planTrial(parts, number, seed, request.dump), host: place.host };
    const elsewhere = place.host.name === this.#document.host.hostname ? '' : ` on ${place.host.name}`;
    const title = `${cell.kernel} ${cell.module} ${cell.scenario} trial ${number}/${Math.max(number, cell.wantedTrials)}${elsewhere}`;
    const outcome = await this.#progress.step(
      title,
      (onStatus) =>
        place.run(plan, dir, this.#signal, {
          onStatus,
          ...(request.onConsole ? { onConsole: request.onConsole } : {}),
        }),
      ({ outcome }) => outcome,
    );
    const trial: RunTrial = { ...outcome, folder: relative, host: place.host, dump: null, analysis: null };
    cell.trials.push(trial);
    judged();
    // Saved before the dump is looked at: the outcome is known, whatever comes of that.
    await this.#save();
    await place.dumped();
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
      Object.assign(trial, await this.#analyses(() => afterCrash(crash, this.#quietly, this.#signal)));
    } catch (error) {
      this.#progress.line(`the dump could not be looked at: ${firstLine(error)}`);
    }
  }

  /** One after the other, so that what is on disk last was known last; who comes while one is written shares the next. */
  #save(): Promise<void> {
    if (this.#nextSave) return this.#nextSave;
    const saved = this.#saving.then(async () => {
      // A large run's takes its time, and trials are saved beside it.
      if (this.#lastSaveMs > LONG_SAVE_MS) await sleep(10 * this.#lastSaveMs);
      this.#nextSave = undefined;
      const began = performance.now();
      this.#document.durationSeconds = Math.round(began - this.#started) / 1000;
      await this.#folder.save(this.#document);
      this.#lastSaveMs = performance.now() - began;
    });
    this.#nextSave = saved;
    this.#saving = saved.catch(() => {});
    return saved;
  }

  /** A person's kept guest is ended by a signal too: if its trial was over, that interrupted nothing. */
  #isInterrupted(): boolean {
    const over = this.#document.cells.every(
      (cell) =>
        cell.trials.length > 0 &&
        !needsAnother(this.#document, cell) &&
        !cell.trials.some((trial) => trial.interrupted),
    );
    return this.#signal.aborted && !(this.#request.attendance !== undefined && over);
  }
}

/** run.json of thousands of trials. */
const LONG_SAVE_MS = 150;

/** Boots of one cell that its user should hear of before they are made. */
const MANY_BOOTS = 30;

/** Part of a guest's memory that its filtered dump takes: 4 % was seen; a busy guest has more. */
const DUMP_SHARE = 0.2;

/** Bytes of dumps that a run may leave if every trial crashes. One more than is kept is on disk while it is analysed, for each job. */
function dumpBytes(request: RunRequest, loaded: LoadedScenario[], jobs: number): number {
  if (request.dump === 'none') return 0;
  const kept = { all: request.trials, first: 1, none: 0 }[request.keepDumps];
  // Twice: the crash kernel's flattened stream, and the dump made of it.
  const one = (entry: LoadedScenario): number => entry.scenario.vm.memoryMiB * 2 ** 20 * DUMP_SHARE;
  const most = Math.max(0, ...loaded.map(one));
  return loaded.reduce((sum, entry) => sum + kept * one(entry), 0) + 2 * most * jobs;
}

/** Guests that run at a time must fit into this host's free memory, or the kernel would end some of them. Throws UsageError. */
function jobsOf({ jobs = 1 }: RunRequest, loaded: LoadedScenario[]): number {
  const needs = loaded.map(needOf);
  const most = (of: (need: Need) => number): number => Math.max(1, ...needs.map(of));
  const [cpus, memoryMiB] = [most((need) => need.cpus), most((need) => need.memoryMiB)];
  if (jobs === 'auto') return Math.min(loaded.length, jobsThatFit({ cpus, memoryMiB }));
  const guests = Math.min(jobs, loaded.length);
  // Within the limits of a container, too.
  const free = Math.floor(process.availableMemory() / 2 ** 20);
  if (jobs > 1 && guests * memoryMiB > free)
    throw new UsageError(
      'bad-usage',
      `--jobs ${jobs}: ${guests} guests need ${guests * memoryMiB} MiB, and ${free} MiB are free on this host`,
    );
  return jobs;
}
