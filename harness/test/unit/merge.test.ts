import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { type RunDocument, runSchema } from '../../results/run-schema.js';
import { parseShard, shardOf } from '../../run/shard.js';
import type { MatrixCell } from '../../scenario/load-matrix.js';
import { loopanic } from '../support/cli.js';
import { tempDir } from '../support/files.js';
import { sampleRun } from '../support/sample-run.js';

const cell = (name: string, control?: number): MatrixCell => ({
  ...{ kernel: 'k', module: name, scenario: 's' },
  ...(control === undefined ? {} : { control }),
});

test('shards: together they are the matrix, each cell once, with its control and in its order', (t) => {
  const cells = [
    cell('a0'),
    cell('a1', 0),
    cell('alone'),
    cell('b1', 4),
    cell('b0'),
    cell('b2', 4),
    cell('c', 2),
  ];
  for (const of of [1, 2, 3, 4, 9]) {
    const parts = Array.from({ length: of }, (_, index) => shardOf(cells, { part: index + 1, of }));
    t.deepEqual(
      parts.flatMap((part) => part.map(({ module }) => module)).sort(),
      cells.map(({ module }) => module).sort(),
    );
    for (const part of parts) {
      const order = part.map(({ module }) => cells.findIndex((entry) => entry.module === module));
      t.deepEqual(
        order,
        [...order].sort((a, b) => a - b),
      );
      for (const { module, control } of part) {
        const before = cells.find((entry) => entry.module === module)?.control;
        t.is(
          control === undefined ? undefined : part[control]?.module,
          before === undefined ? undefined : cells[before]?.module,
        );
      }
    }
  }
});

test('shards: what is no part of a whole is refused', async (t) => {
  t.deepEqual(parseShard('2/5'), { part: 2, of: 5 });
  for (const text of ['0/5', '6/5', '2', '1/0', 'a/b', '-1/2', '1/2/3']) {
    const { code, stderr } = await loopanic(['matrix', 'family', '--list', `--shard=${text}`]);
    t.is(code, 2, text);
    t.regex(stderr, /--shard .*: is no part of a whole/);
  }
  const whole = JSON.parse((await loopanic(['matrix', 'family', '--list', '--json'])).stdout).cells.length;
  const parts = await Promise.all(
    [1, 2, 3].map(async (part) =>
      JSON.parse((await loopanic(['matrix', 'family', '--list', '--json', '--shard', `${part}/3`])).stdout),
    ),
  );
  t.is(
    parts.reduce((sum, { cells }) => sum + cells.length, 0),
    whole,
  );
});

/** The cells of the sample in two runs on disk, as two shards. */
async function shards(
  t: ExecutionContext,
  change: (runs: [RunDocument, RunDocument]) => void = () => {},
): Promise<{ results: string; runs: [RunDocument, RunDocument] }> {
  const results = await tempDir(t);
  const runs = [sampleRun(), sampleRun()] as [RunDocument, RunDocument];
  for (const [index, run] of runs.entries()) {
    run.run = `2026010${index + 1}T000000Z-abc12${index}`;
    run.host.hostname = `host${index}`;
    run.matrix = { name: 'nightly', file: 'x', shard: { part: index + 1, of: 2, whole: 'w' } };
    run.cells = run.cells.filter(
      ({ scenario }) => (scenario === 'sectors-4k' || scenario === 'order-0') === (index === 1),
    );
  }
  change(runs);
  for (const run of runs) {
    for (const { trials } of run.cells)
      for (const { folder, host: _, dump: __, analysis: ___, ...outcome } of trials) {
        const file = join(results, run.run, folder, 'outcome.json');
        await mkdir(dirname(file), { recursive: true });
        await writeFile(file, JSON.stringify(outcome));
        await writeFile(join(dirname(file), 'serial.log'), `of ${run.run}`);
      }
    await mkdir(join(results, run.run), { recursive: true });
    await writeFile(join(results, run.run, 'run.json'), JSON.stringify(run));
  }
  return { results, runs };
}

test('a merged run is what an unsharded one would be, with every log', async (t) => {
  const { results, runs } = await shards(t);
  const merged = await loopanic(['merge', runs[1].run, runs[0].run, '--results', results, '--json']);
  const document = runSchema.parse(JSON.parse(merged.stdout));
  const whole = sampleRun();
  const summary = ({ cells }: RunDocument) =>
    cells
      .map(({ module, scenario, verdict, reason, statistics }) => ({
        module,
        scenario,
        verdict,
        reason,
        statistics,
      }))
      .sort((a, b) => (`${a.module}${a.scenario}` < `${b.module}${b.scenario}` ? -1 : 1));
  t.deepEqual(summary(document), summary(whole));
  t.deepEqual(
    document.mergedFrom.map(({ hostname, shard, cells }) => [hostname, shard, cells]),
    [
      ['host1', '2/2', 2],
      ['host0', '1/2', 4],
    ],
  );
  const trial = document.cells[0]?.trials[0];
  const folder = join(results, document.run);
  t.is(document.matrix?.shard, null);
  if (trial) t.regex(await readFile(join(folder, trial.folder, 'serial.log'), 'utf8'), /^of /);
  // It can be read as any run, and ends as the whole would.
  const again = await loopanic(['report', document.run, '--format', 'json', '--results', results]);
  t.is(again.code, 0, again.stderr);
  t.is(merged.code, 1);
  t.regex(await readFile(join(folder, 'report.html'), 'utf8'), /merged from 2 runs/);
});

for (const [what, pattern, change] of [
  [
    'of another matrix',
    /is of another matrix than/,
    (runs) => Object.assign(runs[1].matrix ?? {}, { name: 'other' }),
  ],
  [
    'by another program',
    /is by another loopanic than/,
    (runs) => Object.assign(runs[1].versions, { code: 'beef' }),
  ],
  ['that is not finished', /is not finished/, (runs) => Object.assign(runs[1], { finishedAt: null })],
  [
    'without one of three',
    /shard 3 of 3 is not given/,
    (runs) => runs.map((run) => Object.assign(run.matrix?.shard ?? {}, { of: 3 })),
  ],
  [
    'with a cell of the other',
    /the cell .* is in .* and in /,
    (runs) => runs[1].cells.push(...runs[0].cells),
  ],
] as [string, RegExp, (runs: [RunDocument, RunDocument]) => unknown][])
  test(`merge: a run ${what} is refused, and nothing is left`, async (t) => {
    const { results, runs } = await shards(t, change);
    const { code, stderr } = await loopanic(['merge', runs[0].run, runs[1].run, '--results', results]);
    t.is(code, 2);
    t.regex(stderr, pattern);
  });
