import { mkdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import type { Signature } from '../../log/signature.js';
import { historyPages } from '../../report/history-pages.js';
import type { RunDocument } from '../../results/run-schema.js';
import { judgeInRun } from '../../verdict/judge-run.js';
import { fisher, type Night, trendOf } from '../../verdict/trend.js';
import { loopanic } from '../support/cli.js';
import { tempDir } from '../support/files.js';
import { sampleRun } from '../support/sample-run.js';

const bad = (count = 5, of = count): Night => ({ kind: 'bad', bad: count, counted: of, byReading: false });
const good = (of = 5): Night => ({ kind: 'good', bad: 0, counted: of, byReading: false });
const none: Night = { kind: 'unknown', bad: 0, counted: 0, byReading: false };

test("Fisher's exact test: tables of textbooks", (t) => {
  const close = (a: number, b: number): boolean => t.true(Math.abs(a - b) < 5e-4, `${a}`);
  // Tea: 3 of 4 and 1 of 4; and two tables whose value any statistics program gives.
  close(fisher({ bad: 3, counted: 4 }, { bad: 1, counted: 4 }), 0.4857);
  close(fisher({ bad: 1, counted: 10 }, { bad: 11, counted: 14 }), 0.0028);
  close(fisher({ bad: 0, counted: 5 }, { bad: 5, counted: 5 }), 0.0079);
  t.is(fisher({ bad: 0, counted: 0 }, { bad: 0, counted: 0 }), 1);
});

test('new, fixed, flaky and steady are told apart by their numbers', (t) => {
  const state = (...nights: Night[]): string => trendOf(nights).state;
  t.is(state(good(), good(), good()), 'steady');
  t.is(state(none, none), 'unknown');
  t.is(state(good(), good(), bad(), bad()), 'new');
  t.is(state(bad(), bad(), good(), none, good()), 'fixed');
  // One panic after a few boots may be chance; a reading of the gate is none.
  t.is(state(good(1), good(1), bad(1)), 'flaky');
  t.is(state({ ...good(1), byReading: true }, { ...bad(1), byReading: true }), 'new');
  // It came and went: believed once it has stayed.
  t.is(state(good(), bad(), good(), bad()), 'flaky');
  t.is(state(good(), bad(), good(), bad(), bad(), bad()), 'new');
  t.is(trendOf([good(), none, bad(), bad()]).since, 2);
});

/** Nights on disk; `change` makes each its own. Returns the results folder. */
async function nights(
  results: string,
  count: number,
  change: (run: RunDocument, night: number) => void = () => {},
): Promise<RunDocument[]> {
  const runs: RunDocument[] = [];
  for (let night = 0; night < count; night++) {
    const run = sampleRun();
    const at = new Date(Date.UTC(2026, 0, 1 + night, 2, 30));
    run.run = `${at.toISOString().slice(0, 10).replaceAll('-', '')}T023000Z-abc123`;
    run.startedAt = at.toISOString();
    change(run, night);
    for (const cell of run.cells) Object.assign(cell, judgeInRun(run, cell));
    await mkdir(join(results, run.run), { recursive: true });
    await writeFile(join(results, run.run, 'run.json'), JSON.stringify(run));
    runs.push(run);
  }
  return runs;
}

const signature: Signature = {
  ...{
    kind: 'usercopy',
    direction: 'exposure',
    object: 'kmalloc-512',
    length: 1024,
    objectSize: 512,
    objects: 2,
  },
  ...{ bug: null, comm: 'tgtd', pid: 1, cpu: 0, kernel: '6.1', tainted: '', stack: ['tcp_recvmsg'] },
};

/** From night `from` on the module under test panics. */
const breaks = (from: number) => (run: RunDocument, night: number) => {
  const [control, fixed] = run.cells;
  if (night < from || !control || !fixed) return;
  fixed.trials = control.trials.map((trial) => ({
    ...structuredClone(trial),
    ...{
      module: fixed.module,
      cellKey: fixed.key,
      signature,
      folder: `${trial.folder}-x`,
    },
  }));
};

test('history: what changed, since when, by which numbers; and compare says the same', async (t) => {
  const results = await tempDir(t);
  const runs = await nights(results, 12, breaks(9));
  const { code, stdout, stderr } = await loopanic(['history', '--results', results, '--json']);
  t.is(code, 0, stderr);
  t.is(JSON.parse(stdout).runs, 12);
  const index = await readFile(join(results, 'history/index.html'), 'utf8');
  t.regex(index, /compound-head\+xfs-loopback<\/a><\/th><td>▲ new since 2026-01-10/);
  t.regex(index, /= steady.*bad in all 12 nights: 60 of 60 boots/);
  // As the runs' own comparison has it.
  const [before, after] = [runs[8]?.run ?? '', runs[9]?.run ?? ''];
  const compared = await loopanic(['compare', before, after, '--results', results, '--json']);
  const changes = JSON.parse(compared.stdout).changes as { cell: string; change: string; text: string }[];
  const { runs: entries } = JSON.parse(await readFile(join(results, 'history/index.json'), 'utf8')) as {
    runs: { run: string; before: string | null; cells: { name: string; change: string | null }[] }[];
  };
  const entry = entries.find(({ run }) => run === after);
  t.is(entry?.before, before);
  for (const { cell, change, text } of changes)
    t.is(
      entry?.cells.find(({ name }) => name === cell)?.change,
      change === 'same' ? null : `${change}: ${text}`,
      cell,
    );
  const page = await readFile(
    join(results, 'history', /href="(cells\/[^"]*compound[^"]*)"/.exec(index)?.[1] ?? ''),
    'utf8',
  );
  t.regex(
    page,
    /iscsi-slab: tgtd read \d+ bytes from kmalloc-\d+<\/td><td>2026-01-10<\/td><td>2026-01-12<\/td><td>3/,
  );
  // Nothing of a page acts: names of cells are text.
  t.false(index.includes('<script'));
});

test('history: the index is taken where a run is as it was, and made again from the runs alone', async (t) => {
  const results = await tempDir(t);
  const runs = await nights(results, 4);
  const file = join(results, 'history/index.json');
  const read = async () => {
    const { code, stderr } = await loopanic(['history', '--results', results]);
    t.is(code, 0, stderr);
    return readFile(file, 'utf8');
  };
  const first = await read();
  // One that stands in the index only, with the time and size of its file, is believed.
  const changed = JSON.parse(first);
  changed.runs[0].host = 'from the index';
  await writeFile(file, JSON.stringify(changed));
  t.regex(await read(), /from the index/);
  // A run that was changed since is read again, and so is one whose night before is another.
  const run = join(results, runs[0]?.run ?? '', 'run.json');
  await utimes(run, new Date(), new Date());
  t.notRegex(await read(), /from the index/);
  t.is(await read(), await read());
  await writeFile(file, '{"version":');
  const again = JSON.parse(await read());
  t.deepEqual(
    again.runs.map(({ run, before }: { run: string; before: string }) => [run, before]),
    runs.map(({ run }, at) => [run, runs[at - 1]?.run ?? null]),
  );
  await rm(join(results, runs[1]?.run ?? ''), { recursive: true });
  t.is(JSON.parse(await read()).runs[1].before, runs[0]?.run);
  // A run that was edited is told, and nothing follows from it.
  const edited = JSON.parse(await readFile(run, 'utf8'));
  edited.cells[0].verdict = 'clean';
  await writeFile(run, JSON.stringify(edited));
  const { stdout } = await loopanic(['history', '--results', results]);
  t.regex(stdout, /20260101T023000Z-abc123: not read: it is damaged or was edited/);
  t.true((await stat(join(results, 'history/index.html'))).isFile());
});

test('history: what was merged is one night, and its parts are none', async (t) => {
  const results = await tempDir(t);
  const runs = await nights(results, 4, (run, night) => {
    const shard = { part: night === 1 ? 1 : 2, of: 2, whole: 'w' };
    if (night === 1 || night === 2) run.matrix = { name: 'nightly', file: 'x', shard };
    const part = { shard: null, hostname: 'h', accel: 'tcg' as const, qemu: 'q', cells: 1 };
    if (night === 3)
      run.mergedFrom = ['20260102T023000Z-abc123', '20260103T023000Z-abc123'].map((name) => ({
        run: name,
        ...part,
      }));
  });
  const { stdout } = await loopanic(['history', '--results', results, '--json']);
  t.is(JSON.parse(stdout).runs, 2);
  const { runs: entries } = JSON.parse(await readFile(join(results, 'history/index.json'), 'utf8'));
  t.is(entries.at(-1).before, runs[0]?.run);
});

test('history: a night that was not run and a kernel that nobody looked after are told', (t) => {
  const at = (day: number): string => new Date(Date.UTC(2026, 0, day, 2)).toISOString();
  const run = (day: number) => ({
    ...{
      run: `2026010${day}`,
      stamp: '',
      series: 'matrix nightly',
      startedAt: at(day),
      host: 'h',
      accel: 'tcg',
    },
    ...{
      version: '0',
      unfinished: null,
      hasReport: false,
      kernels: ['debian-6.1'],
      before: null,
      beforeStamp: null,
      mergedFrom: [],
      gone: [],
      cells: [],
    },
  });
  const text = (days: number[], today: number, fetched: string): string =>
    historyPages(
      { runs: days.map(run), unread: [] },
      new Map([['debian-6.1', fetched]]),
      Date.parse(at(today)),
    )[0]?.text ?? '';
  t.notRegex(text([1, 2, 3, 4, 5], 6, at(1)), /<h2>Stale/);
  t.regex(
    text([1, 2, 3, 6, 7], 8, at(1)),
    /nothing was run between 2026-01-03 and 2026-01-06 \(usually every day\)/,
  );
  t.regex(text([1, 2, 3, 4, 5], 9, at(1)), /nothing was run since 2026-01-05, 4 days ago/);
  t.regex(
    text([1, 2, 3, 4, 5], 6, '2025-11-01T00:00:00Z'),
    /kernel debian-6\.1: nobody has looked for a newer package for 66.1 days/,
  );
});
