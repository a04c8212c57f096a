import { randomBytes } from 'node:crypto';
import { mkdir, readdir, rm, statfs } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve } from 'node:path';
import * as z from 'zod';
import { firstLine, hasErrno, UsageError } from '../base/errors.js';
import { exists, writeFileAtomic, writeJson } from '../base/files.js';
import { readGiven } from '../base/given-file.js';
import { outcomeSchema } from '../outcome/outcome-schema.js';
import { contradictionIn, outcomeDifference } from './check-run.js';
import { lockRun } from './lock.js';
import { RUN_ID } from './run-id.js';
import { type RunDocument, runSchema } from './run-schema.js';
import { trialPath } from './trial-path.js';

/** No run's document is larger: one of 10,000 trials has 20. */
const MOST_RUN_MIB = 256;
/** Bytes that logs and JSON of a run need at least. */
const MIN_FREE_BYTES = 64 * 2 ** 20;

/** A run's folder under results/. Folders are 0700, files 0600: logs and dumps are copies of a machine's memory. */
export class RunFolder {
  readonly id: string;
  readonly path: string;

  private constructor(id: string, path: string) {
    this.id = id;
    this.path = path;
  }

  /**
   * Makes a new folder `<UTC time>-<short id>`. Throws UsageError if the results folder cannot be written to or has no room for
   * `dumpBytes` bytes of dumps beside the logs.
   */
  static async create(results: string, dumpBytes = 0): Promise<RunFolder> {
    const base = resolve(results);
    const stamp = new Date()
      .toISOString()
      .replace(/[-:]/g, '')
      .replace(/\.\d+Z$/, 'Z');
    const id = `${stamp}-${randomBytes(3).toString('hex')}`;
    const path = join(base, id);
    try {
      await makeParents(base);
      await mkdir(path, { mode: 0o700 });
      await writeFileAtomic(join(path, '.probe'), Buffer.alloc(4096));
      await rm(join(path, '.probe'));
    } catch (error) {
      await rm(path, { recursive: true, force: true }).catch(() => {});
      const why = hasErrno(error, 'ENOSPC') ? 'it is full' : firstLine(error);
      throw new UsageError('bad-results', `--results ${results}: cannot be written to (${why})`, error);
    }
    const { bavail, bsize } = await statfs(path);
    const needed = MIN_FREE_BYTES + dumpBytes;
    if (bavail * bsize < needed) {
      await rm(path, { recursive: true, force: true });
      const free = Math.floor((bavail * bsize) / 2 ** 20);
      throw new UsageError(
        'results-full',
        `--results ${results}: only ${free} MiB free, ${Math.ceil(needed / 2 ** 20)} MiB needed${dumpBytes > 0 ? ' if every trial crashes (see --keep-dumps, --dump)' : ''}`,
      );
    }
    return new RunFolder(id, path);
  }

  /**
   * The folder of an earlier run, by its id below `results`, by the end of that (`7b54fd`), by its path, or `latest`. Throws UsageError if
   * there is none, or more than one.
   */
  static async open(results: string, run: string): Promise<RunFolder> {
    // Its run.json means it too.
    const folder = basename(run) === 'run.json' ? dirname(run) : run;
    for (const path of [resolve(results, folder), resolve(folder)])
      if (await exists(join(path, 'run.json'))) return new RunFolder(basename(path), path);
    const ids = (await readdir(resolve(results)).catch(() => [])).filter((name) => RUN_ID.test(name)).sort();
    const found = run === 'latest' ? ids.slice(-1) : ids.filter((id) => id.endsWith(`-${run}`));
    const [only] = found;
    if (only !== undefined && found.length === 1) return new RunFolder(only, join(resolve(results), only));
    throw new UsageError(
      'no-such-run',
      found.length > 1
        ? `${run}: is the end of ${found.join(' and ')}: give one of them`
        : `${run}: there is no run.json in it, nor a run of this name in ${results}`,
    );
  }

  /**
   * What run.json says, with every verdict derived from its trials once more. Throws UsageError if it is damaged, edited, of another
   * version, or not what its trials' own files say.
   */
  async read(): Promise<RunDocument> {
    const file = join(this.path, 'run.json');
    const link = await this.#firstLink();
    if (link !== null)
      throw new UsageError(
        'bad-run',
        `${join(this.path, link)}: is neither a file nor a folder: a run has no such thing`,
      );
    let run: RunDocument;
    try {
      run = runSchema.parse(JSON.parse((await readGiven(file, MOST_RUN_MIB)).toString()));
    } catch (error) {
      throw new UsageError(
        'bad-run',
        `${file}: is not a run of this version of loopanic: ${describe(error)}`,
        error,
      );
    }
    const wrong = contradictionIn(run) ?? (await this.#contradictedBy(run));
    if (wrong !== null)
      throw new UsageError('bad-run', `${file}: is damaged or was edited: ${wrong}: run it again`);
    return run;
  }

  /** What stands in it for something elsewhere: it would be read, or written to, as the run's own. Null if there is nothing of the kind. */
  async #firstLink(): Promise<string | null> {
    const entries = await readdir(this.path, { recursive: true, withFileTypes: true }).catch(
      (error: unknown) => {
        throw new UsageError('bad-run', `${this.path}: cannot be gone through (${firstLine(error)})`, error);
      },
    );
    const odd = entries.find((entry) => !entry.isFile() && !entry.isDirectory());
    return odd ? join(relative(this.path, odd.parentPath), odd.name) : null;
  }

  /** Where run.json and the trials' own outcome.json differ; null also where no trial has a folder (a run may be handed on without). */
  async #contradictedBy(run: RunDocument): Promise<string | null> {
    if (!(await exists(join(this.path, 'cells')))) return null;
    for (const cell of run.cells)
      for (const trial of cell.trials) {
        const name = join(trial.folder, 'outcome.json');
        const text = await readGiven(join(this.path, name), MOST_RUN_MIB).then(String, () => null);
        if (text === null) return `${name} is not there`;
        let saved: unknown;
        try {
          saved = JSON.parse(text);
        } catch (error) {
          return `${name} cannot be read: ${firstLine(error)}`;
        }
        const parsed = outcomeSchema.safeParse(saved);
        if (!parsed.success) return `${name}: ${describe(parsed.error)}`;
        const differs = outcomeDifference(parsed.data, trial);
        if (differs !== null) return `${name} says ${differs}`;
      }
    return null;
  }

  /** Keeps other processes out of the run until the returned object is disposed of. Throws UsageError if one is at it. */
  lock(): Promise<AsyncDisposable> {
    return lockRun(this.path);
  }

  /** Folder of one trial, relative to the run's. */
  trialPath(cell: { kernel: string; module: string; scenario: string }, trial: number): string {
    return trialPath(cell, trial);
  }

  /** Numbers of the trials of a cell that have a folder, in order. */
  async trialNumbers(cell: { kernel: string; module: string; scenario: string }): Promise<number[]> {
    const names = await readdir(join(this.path, dirname(trialPath(cell, 1)))).catch((error: unknown) => {
      if (hasErrno(error, 'ENOENT')) return [];
      throw error;
    });
    return names
      .flatMap((name) => /^trial-(\d{3,})$/.exec(name)?.[1] ?? [])
      .map(Number)
      .sort((a, b) => a - b);
  }

  /** Makes the folder of one trial and returns its path relative to the run's. */
  async trial(cell: { kernel: string; module: string; scenario: string }, trial: number): Promise<string> {
    const relative = this.trialPath(cell, trial);
    await mkdir(dirname(join(this.path, relative)), { recursive: true, mode: 0o700 });
    // Never a folder that is there already: a trial must not read another's logs.
    await mkdir(join(this.path, relative), { mode: 0o700 });
    return relative;
  }

  /** Removes the folder of a run that never came to a trial. */
  discard(): Promise<void> {
    return rm(this.path, { recursive: true, force: true });
  }

  save(document: RunDocument): Promise<void> {
    return writeJson(join(this.path, 'run.json'), document);
  }
}

/** mkdir -p. Node's own `recursive` never returns where a parent exists but takes no folders, as /proc. */
async function makeParents(path: string): Promise<void> {
  if (await exists(path)) return;
  await makeParents(dirname(path));
  await mkdir(path).catch((error: unknown) => {
    if (!hasErrno(error, 'EEXIST')) throw error;
  });
}

/** First thing that a schema found, or the parser's own words. */
function describe(error: unknown): string {
  if (!(error instanceof z.ZodError)) return firstLine(error);
  const [issue] = error.issues;
  return `${issue?.path.join('.')}: ${issue?.message}`;
}
