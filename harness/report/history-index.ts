import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';
import { firstLine } from '../base/errors.js';
import { exists, writeFileAtomic } from '../base/files.js';
import { readGiven } from '../base/given-file.js';
import type { Progress } from '../base/progress.js';
import { contradictionIn } from '../results/check-run.js';
import { RUN_ID } from '../results/run-id.js';
import { type RunCell, type RunDocument, runSchema } from '../results/run-schema.js';
import { cellName, standing, titleOf, unfinished } from './cell-state.js';
import { compareRuns, keyedCells } from './compare.js';

/** Folder of the history below a results folder. */
export const HISTORY_DIR = 'history';
const INDEX = 'index.json';
/** Changes when entries are made in another way. */
const INDEX_VERSION = 1;
const MOST_INDEX_MIB = 256;
const MOST_RUN_MIB = 256;

const nightCellSchema = z.object({
  /** The cell's name, as `compare` has it: a file under test is the same cell whatever its content is. */
  name: z.string(),
  /** As its run's report has it. */
  reportName: z.string(),
  verdict: z.string().nullable(),
  standing: z.enum(['ok', 'contradicted', 'undecided']),
  reason: z.string(),
  bad: z.int(),
  counted: z.int(),
  byReading: z.boolean(),
  leaked: z.int().nullable(),
  segments: z.int().nullable(),
  /** Seconds from QEMU's start to the panic, the middle one. */
  panicSeconds: z.number().nullable(),
  signatures: z.array(z.string()),
  build: z.string(),
  /** What `compare` says of it against the run before; null: nothing. */
  change: z.string().nullable(),
});

const entrySchema = z.object({
  run: z.string(),
  /** Of run.json: its time and size tell whether the entry is still right. */
  stamp: z.string(),
  /** Runs with the same name are nights of one history. */
  series: z.string(),
  startedAt: z.string(),
  host: z.string(),
  accel: z.string(),
  version: z.string(),
  unfinished: z.string().nullable(),
  hasReport: z.boolean(),
  kernels: z.array(z.string()),
  /** The run before it in its series, which its changes are against, and its stamp. */
  before: z.string().nullable(),
  beforeStamp: z.string().nullable(),
  /** Runs that it was made of: they are no nights of their own. */
  mergedFrom: z.array(z.string()),
  /** Cells of the run before that are not in this one. */
  gone: z.array(z.string()),
  cells: z.array(nightCellSchema),
});
const indexSchema = z.object({
  version: z.literal(INDEX_VERSION),
  runs: z.array(entrySchema),
});

export type NightCell = z.infer<typeof nightCellSchema>;
export type NightRun = z.infer<typeof entrySchema>;

/** All runs of a results folder, by time. */
export interface History {
  runs: NightRun[];
  /** Runs that cannot be read, and why: nothing follows from them. */
  unread: { run: string; why: string }[];
}

/**
 * Goes through all runs below `results` and keeps an index of them in history/index.json, from which an entry is taken where its run.json is as it was.
 * The index is rebuilt from the runs alone if it is gone or damaged.
 */
export async function historyOf(results: string, progress: Progress): Promise<History> {
  const file = join(results, HISTORY_DIR, INDEX);
  const known = new Map((await readIndex(file)).map((entry) => [entry.run, entry]));
  const names = (await readdir(results).catch(() => [])).filter((name) => RUN_ID.test(name)).sort();
  const unread: History['unread'] = [];
  const runs: NightRun[] = [];
  const last = new Map<string, { id: string; stamp: string; document: RunDocument | null }>();
  await progress.step(`reading ${names.length} runs`, async (update) => {
    for (const [index, name] of names.entries()) {
      if (index % 50 === 0) update(`${index} of ${names.length}`);
      try {
        const stamp = await stampOf(join(results, name, 'run.json'));
        const entry = known.get(name);
        const before = entry ? last.get(entry.series) : undefined;
        if (
          entry?.stamp === stamp &&
          entry.before === (before?.id ?? null) &&
          entry.beforeStamp === (before?.stamp ?? null)
        ) {
          runs.push({ ...entry, hasReport: await hasReport(results, name) });
          last.set(entry.series, { id: name, stamp, document: null });
          continue;
        }
        const document = await readRun(results, name);
        const shard = document.matrix?.shard;
        const series = `${titleOf(document)}${shard ? ` shard ${shard.part}/${shard.of}` : ''}`;
        const previous = last.get(series);
        const earlier = previous ? (previous.document ?? (await readRun(results, previous.id))) : null;
        const made = entryOf(document, stamp, series, earlier, await hasReport(results, name));
        runs.push({ ...made, beforeStamp: previous?.stamp ?? null });
        last.set(series, { id: name, stamp, document });
      } catch (error) {
        unread.push({ run: name, why: firstLine(error) });
      }
    }
  });
  await writeFileAtomic(file, JSON.stringify({ version: INDEX_VERSION, runs }));
  const parts = new Set(runs.flatMap(({ mergedFrom }) => mergedFrom));
  return { runs: runs.filter(({ run }) => !parts.has(run)), unread };
}

async function readIndex(file: string): Promise<NightRun[]> {
  if (!(await exists(file))) return [];
  try {
    return indexSchema.parse(JSON.parse((await readGiven(file, MOST_INDEX_MIB)).toString())).runs;
  } catch {
    // Made again from the runs.
    return [];
  }
}

async function stampOf(file: string): Promise<string> {
  const { mtimeMs, size } = await stat(file);
  return `${mtimeMs} ${size}`;
}

const hasReport = (results: string, run: string): Promise<boolean> =>
  exists(join(results, run, 'report.html'));

/** By itself, without the trials' own files: verdicts are derived anew from the trials that it lists. */
async function readRun(results: string, name: string): Promise<RunDocument> {
  const text = (await readGiven(join(results, name, 'run.json'), MOST_RUN_MIB)).toString();
  const run = runSchema.parse(JSON.parse(text));
  const wrong = contradictionIn(run);
  if (wrong !== null) throw new Error(`it is damaged or was edited: ${wrong}`);
  return run;
}

function entryOf(
  run: RunDocument,
  stamp: string,
  series: string,
  before: RunDocument | null,
  hasReport: boolean,
): Omit<NightRun, 'beforeStamp'> {
  const changes = before === null ? [] : compareRuns(before, run);
  const changed = new Map(changes.map((entry) => [entry.cell, entry]));
  return {
    run: run.run,
    stamp,
    series,
    startedAt: run.startedAt,
    host: run.host.hostname,
    accel: run.host.accel,
    version: run.versions.loopanic,
    unfinished: unfinished(run),
    hasReport,
    kernels: [...new Set(run.cells.map(({ kernel }) => kernel))],
    before: before?.run ?? null,
    mergedFrom: run.mergedFrom.map((part) => part.run),
    gone: changes.filter(({ change }) => change === 'only-before').map(({ cell }) => cell),
    cells: [...keyedCells(run)].map(([name, cell]) => {
      const reportName = cellName(cell);
      const change = changed.get(reportName);
      return {
        ...nightCell(name, reportName, cell, run),
        change:
          change && change.change !== 'same' && change.change !== 'only-after'
            ? `${change.change}: ${change.text}`
            : null,
      };
    }),
  };
}

function nightCell(
  name: string,
  reportName: string,
  cell: RunCell,
  run: RunDocument,
): Omit<NightCell, 'change'> {
  const telling = cell.trials.filter(({ outcome }) => outcome === 'reproduced' || outcome === 'survived');
  const isBad = ({ outcome, gate }: (typeof telling)[number]): boolean =>
    outcome === 'reproduced' || (gate !== null && gate.leaked > 0);
  const panics = telling
    .filter(({ outcome }) => outcome === 'reproduced')
    .map(({ timings }) => timings.outcome ?? 0)
    .sort((a, b) => a - b);
  const gate = cell.statistics?.gate ?? null;
  return {
    name,
    reportName,
    verdict: cell.verdict,
    standing: standing(cell, run),
    reason: cell.reason,
    bad: telling.filter(isBad).length,
    counted: telling.length,
    byReading: gate !== null,
    leaked: gate?.leaked ?? null,
    segments: gate?.slabSegments ?? null,
    panicSeconds: panics[Math.floor(panics.length / 2)] ?? null,
    signatures: [...new Set(cell.trials.flatMap(signatureText))].sort(),
    build: [
      cell.kernelInfo?.version ?? '',
      cell.moduleInfo?.buildId ?? cell.moduleInfo?.srcversion ?? '',
    ].join(' '),
  };
}

/** What a trial's crash looked like, without what differs from boot to boot. */
function signatureText({ outcome, signature, bug, reason }: RunCell['trials'][number]): string[] {
  if (outcome === 'reproduced' && signature)
    return [
      `${bug}: ${signature.comm.replace(/\d+/g, 'N')} read ${signature.length} bytes from ${signature.object}`,
    ];
  if (outcome === 'other-crash' || outcome === 'warned')
    return [
      `${outcome}: ${reason
        .replace(/\b(?:0x)?[0-9a-f]{8,16}\b/g, 'ADDR')
        .replace(/\d+/g, 'N')
        .slice(0, 200)}`,
    ];
  return outcome === 'hung' ? ['hung'] : [];
}
