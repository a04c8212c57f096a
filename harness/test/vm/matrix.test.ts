import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { runSchema } from '../../results/run-schema.js';
import { loopanic, startLoopanic } from '../support/cli.js';
import { tempDir } from '../support/files.js';

const args = (file: string, results: string, ...more: string[]): string[] => [
  'matrix',
  file,
  '--dump',
  'none',
  '--results',
  results,
  ...more,
];

async function matrixFile(dir: string, text: string): Promise<string> {
  const file = join(dir, 'test.matrix.yaml');
  await writeFile(file, `kernels: [debian-6.1]\n${text}`);
  return file;
}

test.serial(
  'a wrong expectation: exit 1, and the cell is named with the command that repeats it',
  async (t) => {
    const dir = await tempDir(t);
    const file = await matrixFile(
      dir,
      'include:\n  - {module: unpatched, scenario: xfs-loopback, expect: clean, why: somebody said so}\n',
    );
    const { code, stdout } = await loopanic(args(file, dir), { timeoutSeconds: 200 });
    t.is(code, 1);
    t.regex(
      stdout,
      /debian-6\.1 unpatched xfs-loopback: verdict panics: .*expected clean \(somebody said so\): CONTRADICTED/,
    );
    t.regex(
      stdout,
      /repeat: npx loopanic run xfs-loopback --kernel debian-6\.1 --module unpatched --dump none --seed \d+/,
    );
  },
);

test.serial('a control that cannot panic (4 KiB sectors): void, exit 3, and nothing is clean', async (t) => {
  const dir = await tempDir(t);
  const file = await matrixFile(
    dir,
    `controls:
  - {module: unpatched, scenario: sectors-4k}
include:
  - {module: compound-head, scenario: xfs-loopback, expect: clean, why: the fix}
`,
  );
  const { code, stdout } = await loopanic(
    [...args(file, dir, '--confidence', '0.9', '--trials', '2'), '--json'],
    {
      timeoutSeconds: 200,
    },
  );
  t.is(code, 3);
  const { cells } = runSchema.parse(JSON.parse(stdout));
  t.deepEqual(
    cells.map(({ module, verdict, trials }) => [module, verdict, trials.length]),
    [
      ['compound-head', 'void', 0],
      ['unpatched', 'void', 2],
    ],
  );
});

test.serial(
  'killed half-way and resumed: no trial twice, none lost, the same shape in the end',
  async (t) => {
    const dir = await tempDir(t);
    const results = join(dir, 'results');
    const file = await matrixFile(
      dir,
      'modules: [unpatched]\nscenarios: [xfs-loopback]\ninclude:\n  - {module: pageslab, scenario: xfs-loopback}\n',
    );
    const child = startLoopanic(args(file, results, '--trials', '2', '--seed', '7', '--no-expectation-ok'));
    const firstCell = 'cells/debian-6.1+unpatched+xfs-loopback';
    const run = async (): Promise<string> => (await readdir(results).catch(() => []))[0] ?? '';
    // The first cell is through, the second has begun.
    const begun = async (): Promise<boolean> =>
      (await readdir(join(results, await run(), 'cells')).catch(() => [])).length > 1;
    const end = performance.now() + 120_000;
    while (!(await begun()) && performance.now() < end)
      await new Promise((resolve) => setTimeout(resolve, 100));
    child.kill('SIGKILL');
    await child;
    const id = await run();
    const before = runSchema.parse(JSON.parse(await readFile(join(results, id, 'run.json'), 'utf8')));
    t.is(before.finishedAt, null);
    t.is(before.cells[0]?.trials.length, 2);
    const stamp = async (): Promise<number> =>
      (await stat(join(results, id, firstCell, 'trial-001/serial.log'))).mtimeMs;
    const untouched = await stamp();

    const other = await loopanic(args(file, results, '--trials', '3', '--no-expectation-ok', '--resume', id));
    t.is(other.code, 2);
    t.regex(other.stderr, /its trials was 2, not 3: start a new run/);

    const resumed = await loopanic(
      [
        ...args(file, results, '--trials', '2', '--seed', '7', '--no-expectation-ok', '--resume', id),
        '--json',
      ],
      { timeoutSeconds: 200 },
    );
    t.is(resumed.code, 0, resumed.stderr);
    t.deepEqual(await readdir(results), [id]);
    const after = runSchema.parse(JSON.parse(resumed.stdout));
    t.is(after.run, id);
    t.is(after.resumedAt.length, 1);
    t.is(after.startedAt, before.startedAt);
    t.deepEqual(after.cells[0]?.trials, before.cells[0]?.trials);
    t.is(await stamp(), untouched);
    t.deepEqual(
      after.cells[1]?.trials.map(({ trial, outcome, seed }) => [trial, outcome, seed]),
      [
        // Cut off: it stays, and two more come.
        [1, 'infra-error', 7],
        [2, 'reproduced', 8],
        [3, 'reproduced', 9],
      ],
    );
    t.not(after.finishedAt, null);
  },
);

test.serial('--jobs 2: two cells at a time, each with its own guest and outcome', async (t) => {
  const dir = await tempDir(t);
  const file = await matrixFile(dir, 'modules: [unpatched, pageslab]\nscenarios: [xfs-loopback]\n');
  const { code, stdout, stderr } = await loopanic(
    [...args(file, dir, '--jobs', '2', '--no-expectation-ok'), '--json'],
    {
      timeoutSeconds: 200,
    },
  );
  t.is(code, 0, stderr);
  const { cells } = runSchema.parse(JSON.parse(stdout));
  t.deepEqual(
    cells.map(({ module, verdict, trials }) => [module, verdict, trials.map(({ outcome }) => outcome)]),
    [
      ['unpatched', 'panics', ['reproduced']],
      ['pageslab', 'panics', ['reproduced']],
    ],
  );
  // Both have begun before one is done.
  const steps = stderr.split('\n').filter((line) => /trial 1\/1( …|: reproduced in )/.test(line));
  t.true(
    steps.slice(0, 2).every((line) => line.endsWith('…')),
    stderr,
  );
});
