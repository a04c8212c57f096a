import { spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { mkdir, mkdtemp, open, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { packageRoot } from '../../base/paths.js';
import { runSchema } from '../../results/run-schema.js';
import { judgeInRun } from '../../verdict/judge-run.js';
import { FD } from '../../vm/qemu-args.js';
import { TestRedis, TestWorker } from '../support/queue-bench.js';
import { sampleRun } from '../support/sample-run.js';

/**
 * `npm run bench [NAME...]`: what loopanic costs, as ratios of what is measured in turns in one run, so that a busy host weighs on both
 * sides alike. A table on stderr, JSON on stdout. Rounds: LOOPANIC_BENCH_ROUNDS, default 3. A figure is the median of its rounds.
 */

const MAIN = join(packageRoot, 'dist/cli/main.js');
const ROUNDS = Number(process.env.LOOPANIC_BENCH_ROUNDS ?? 3);

interface Figure {
  name: string;
  /** What was measured, and beside what, in seconds; or counts. */
  value: number;
  beside: number;
  ratio: number;
  goal: string;
  met: boolean;
  rounds: [number, number][];
}

const median = (numbers: readonly number[]): number =>
  [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN;

const seconds = async (work: () => Promise<unknown>): Promise<number> => {
  const started = performance.now();
  await work();
  return (performance.now() - started) / 1000;
};

/** Measures both in turns; the goal is one of their ratio. */
async function inTurns(
  name: string,
  one: () => Promise<number>,
  other: () => Promise<number>,
  [sign, goal]: readonly ['at most' | 'at least', number],
  rounds = ROUNDS,
): Promise<Figure> {
  const found: [number, number][] = [];
  for (let round = 0; round < rounds; round++) found.push([await one(), await other()]);
  const [value, beside] = [median(found.map(([a]) => a)), median(found.map(([, b]) => b))];
  const ratio = median(found.map(([a, b]) => a / b));
  const met = sign === 'at most' ? ratio <= goal : ratio >= goal;
  return { name, value, beside, ratio, goal: `${sign} ${goal}`, met, rounds: found };
}

const scratch = await mkdtemp(join(tmpdir(), 'loopanic-bench-'));
const results = join(scratch, 'results');
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(130));
process.on('exit', () => {
  // Whatever ended it; nothing that takes its time is done here any more.
  rmSync(scratch, { recursive: true, force: true });
});

async function loopanic(...args: string[]) {
  return execa(process.execPath, [MAIN, ...args, '--results', results], { reject: false });
}

async function runOf(...args: string[]) {
  const { stdout, stderr } = await loopanic(...args, '--json');
  if (stdout === '') throw new Error(`${args.join(' ')}: ${stderr}`);
  return runSchema.parse(JSON.parse(stdout));
}

/** One trial, in seconds from QEMU's start to its outcome. */
async function trial(module: string, ...more: string[]): Promise<number> {
  const run = await runOf('run', 'xfs-loopback', '--module', module, '--dump', 'none', ...more);
  const [only] = run.cells[0]?.trials ?? [];
  const wanted = module === 'unpatched' ? 'reproduced' : 'survived';
  if (only?.outcome !== wanted) throw new Error(`${module}: ${only?.outcome}: ${only?.reason}`);
  return only.timings.outcome ?? Number.NaN;
}

/**
 * The shortest script that shows the panic: a QEMU with the arguments and the initramfs of a guest of loopanic's, and a look at its console
 * twenty times a second. They are taken from one that runs: its initramfs has no name on disk, but its QEMU's descriptor has it.
 */
async function script(): Promise<() => Promise<number>> {
  const guest = spawn(
    process.execPath,
    [MAIN, 'run', 'xfs-loopback', '--module', 'unpatched', '--dump', 'none', '--results', results],
    { stdio: ['pipe', 'ignore', 'pipe'] },
  );
  let said = '';
  guest.stderr.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  const qemu = await until(async () => {
    const { stdout } = await execa('pgrep', ['-f', 'loopanic-guest'], { reject: false });
    for (const pid of stdout.split('\n').filter(Boolean)) {
      const status = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
      const parent = status.slice(status.lastIndexOf(')')).split(' ')[2];
      if (parent === `${guest.pid}`) return pid;
    }
    return said.includes('error') ? Promise.reject(new Error(said)) : null;
  });
  const args = (await readFile(`/proc/${qemu}/cmdline`, 'utf8')).split('\0').slice(0, -1);
  const initramfs = join(scratch, 'initramfs');
  await writeFile(initramfs, await readFile(`/proc/${qemu}/fd/${FD.initramfs}`));
  guest.kill('SIGINT');
  await new Promise((resolve) => guest.once('exit', resolve));
  const console = join(scratch, 'console');
  // Its own files in place of the descriptors that loopanic's has.
  const at = args.findIndex((arg) => arg.startsWith('socket,id=qmp'));
  args.splice(at - 1, 4);
  const own = args
    .map((arg) =>
      arg.replace(
        /^(file,id=(?:console|guest),path=).*$/,
        (_, head: string) => `${head}${head.includes('guest') ? '/dev/null' : console}`,
      ),
    )
    .map((arg) => (arg === `/dev/fd/${FD.initramfs}` ? initramfs : arg));
  return () =>
    seconds(async () => {
      await (await open(console, 'w')).close();
      const quoted = own.map((arg) => `'${arg}'`).join(' ');
      await execa('sh', [
        '-c',
        `timeout 120 ${quoted} & qemu=$!; until grep -q 'end trace' '${console}' || ! kill -0 $qemu; do sleep 0.05; done; kill $qemu; wait $qemu || :`,
      ]);
    });
}

async function until<T>(look: () => Promise<T | null>): Promise<T> {
  for (let left = 600; left > 0; left--) {
    const found = await look();
    if (found !== null) return found;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error('waited in vain');
}

/** A run with so many trials, ten to a cell, as if they had been run, in the results folder. */
async function synthetic(trials: number): Promise<string> {
  const run = sampleRun();
  const [control, tested] = run.cells;
  const [first] = tested?.trials ?? [];
  if (!control || !tested || !first) throw new Error('no trial');
  run.run = `20260101T000000Z-${String(trials).padStart(6, '0')}`;
  run.cells = Array.from({ length: trials / 10 }, (_, index) => {
    const kernel = `kernel-${index}`;
    const folder = (number: number): string => `cells/${kernel}/trial-${number}`;
    return {
      ...tested,
      kernel,
      control: null,
      trials: Array.from({ length: 10 }, (_, at) => ({
        ...first,
        kernel,
        trial: at + 1,
        folder: folder(at + 1),
      })),
    };
  });
  for (const cell of run.cells) Object.assign(cell, judgeInRun(run, cell));
  await mkdir(join(results, run.run), { recursive: true });
  await writeFile(join(results, run.run, 'run.json'), JSON.stringify(run));
  return join(results, run.run);
}

const BENCHES: Record<string, () => Promise<Figure[]>> = {
  help: async () => [
    await inTurns(
      '--help beside node -e 0',
      () => seconds(() => execa(process.execPath, [MAIN, '--help'])),
      () => seconds(() => execa(process.execPath, ['-e', '0'])),
      ['at most', 3],
      15,
    ),
  ],
  probe: async () => [
    await inTurns(
      'a trial with the probe, beside one without',
      () => trial('stock'),
      () => trial('stock', '--no-probe'),
      ['at most', 1.03],
    ),
  ],
  script: async () => {
    const shortest = await script();
    return [
      await inTurns('QEMU start to panic, beside the shortest script', () => trial('unpatched'), shortest, [
        'at most',
        1.1,
      ]),
    ];
  },
  validate: async () => [
    await inTurns(
      'validate a fix, beside one trial',
      () => seconds(() => runOf('validate', '--kernel', 'debian-6.1', '--module', 'stock', '--dump', 'none')),
      () => seconds(() => trial('stock')),
      ['at most', 3.5],
    ),
  ],
  jobs: async () => {
    const matrix = join(scratch, 'jobs.matrix.yaml');
    await writeFile(
      matrix,
      'kernels: [debian-6.1]\ninclude:\n  - {module: stock, scenario: xfs-loopback}\n  - {module: compound-head, scenario: xfs-loopback}\n',
    );
    const all = (jobs: number) => async (): Promise<number> => {
      const run = await runOf('matrix', matrix, '--jobs', `${jobs}`, '--dump', 'none');
      return (60 * run.cells.flatMap((cell) => cell.trials).length) / run.durationSeconds;
    };
    return [await inTurns('trials a minute with two jobs, beside one', all(2), all(1), ['at least', 1.8])];
  },
  queue: async () => {
    const matrix = join(scratch, 'queue.matrix.yaml');
    await writeFile(
      matrix,
      `kernels: [debian-6.1]\ninclude:\n${['xfs-loopback', 'nvme-tcp-loopback', 'lio-loopback'].map((name) => `  - {module: stock, scenario: ${name}}\n`).join('')}  - {module: compound-head, scenario: xfs-loopback}\n`,
    );
    const ends: (() => Promise<void>)[] = [];
    const home = { t: { teardown: (end: () => Promise<void>) => void ends.unshift(end) }, dir: scratch };
    const redis = await TestRedis.start(home);
    for (const name of ['w1', 'w2']) await (await TestWorker.start(home, redis.url, name)).until(/waits at/);
    const all =
      (...how: string[]) =>
      async (): Promise<number> => {
        const run = await runOf('matrix', matrix, ...how, '--dump', 'none');
        return (60 * run.cells.flatMap((cell) => cell.trials).length) / run.durationSeconds;
      };
    // Once for the parts that workers fetch.
    await all('--queue', redis.url)();
    const figure = await inTurns(
      'trials a minute through a queue with two workers, beside two jobs',
      all('--queue', redis.url),
      all('--jobs', '2'),
      ['at least', 0.9],
    );
    for (const end of ends) await end();
    return [figure];
  },
  dump: async () => {
    const rounds: [number, number][] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const run = await runOf('run', 'xfs-loopback', '--module', 'unpatched');
      const { outcome = 0, dumped = 0 } = run.cells[0]?.trials[0]?.timings ?? {};
      rounds.push([dumped - outcome, outcome]);
    }
    const [value, beside] = [median(rounds.map(([a]) => a)), median(rounds.map(([, b]) => b))];
    return [
      {
        name: 'panic to its dump, beside start to panic',
        value,
        beside,
        ratio: value / beside,
        goal: '–',
        met: true,
        rounds,
      },
    ];
  },
  report: async () => {
    const files = await Promise.all([100, 1000, 10000].map(synthetic));
    const report =
      (file = '') =>
      () =>
        seconds(() => execa(process.execPath, [MAIN, 'report', file, '--format', 'json']));
    const compare =
      (file = '') =>
      () =>
        seconds(() => execa(process.execPath, [MAIN, 'compare', file, file], { reject: false }));
    return [
      await inTurns('report of 1,000 trials, beside 100', report(files[1]), report(files[0]), [
        'at most',
        10,
      ]),
      await inTurns('report of 10,000 trials, beside 1,000', report(files[2]), report(files[1]), [
        'at most',
        10,
      ]),
      await inTurns('compare of 10,000 trials, beside 1,000', compare(files[2]), compare(files[1]), [
        'at most',
        10,
      ]),
    ];
  },
};

const asked = process.argv.slice(2);
const unknown = asked.find((name) => !(name in BENCHES));
if (unknown !== undefined) {
  process.stderr.write(
    `bench: no ${unknown}: give some of ${Object.keys(BENCHES).join(', ')}, or none for all\n`,
  );
  process.exit(2);
}
const figures: Figure[] = [];
for (const [name, bench] of Object.entries(BENCHES)) {
  if (asked.length > 0 && !asked.includes(name)) continue;
  for (const figure of await bench()) {
    figures.push(figure);
    const { value, beside, ratio, goal, met } = figure;
    process.stderr.write(
      `${figure.name}: ${value.toFixed(2)} / ${beside.toFixed(2)} = ${ratio.toFixed(2)} (goal: ${goal}${met ? '' : ': MISSED'})\n`,
    );
  }
}
process.stdout.write(
  `${JSON.stringify({ rounds: ROUNDS, node: process.versions.node, figures }, null, 2)}\n`,
);
