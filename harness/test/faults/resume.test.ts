import { chmod, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import type { RunDocument } from '../../results/run-schema.js';
import { FaultBench, smallDisk } from '../support/fault-bench.js';

// What becomes of a run whose process, disk or folder fails: nothing that a guest said is lost, nothing is believed that it did not say.
const QUICK = { silence: 6, stall: 8 };
const PANICS = { unpatched: ['panic'] };

async function resumed(
  bench: FaultBench,
  args: string[],
): Promise<{ code: number; run: RunDocument; stderr: string }> {
  const { code, stdout, stderr } = await bench.command([...args, '--resume', await bench.runId(), '--json']);
  bench.t.truthy(stdout, stderr);
  return { code, run: JSON.parse(stdout), stderr };
}
const tested = (run: RunDocument) => run.cells[1] as RunDocument['cells'][0];
const outcomes = (run: RunDocument): string[] => tested(run).trials.map(({ outcome }) => outcome);
const consoles = (bench: FaultBench): Promise<string[]> =>
  bench
    .trials('compound-head')
    .then((dirs) =>
      Promise.all(dirs.map((dir) => readFile(join(dir, 'serial.log'), 'latin1').catch(() => ''))),
    );

test('the two cells, undisturbed: the control panics five times, the fix survives three', (t) =>
  FaultBench.scripted(t, async (bench) => {
    await bench.script({ ...PANICS, 'compound-head': ['survive'] });
    const { code, stdout } = await bench.command([...(await bench.pair()), '--json']);
    t.is(code, 0);
    const run = JSON.parse(stdout) as RunDocument;
    t.deepEqual(outcomes(run), ['survived', 'survived', 'survived']);
    t.regex(tested(run).reason, /is called clean in at most 0\.\d+ % of such runs/);
  }));

for (const [what, mode, until, outcome] of [
  ['in the middle of a panic', 'half-then-wait', 'kernel BUG at', 'other-crash'],
  ['after a warning', 'warn-then-hang', 'skb_splice_from_iter', 'warned'],
  ['while nothing is wrong', 'hang-with-heartbeat', 'phase workload', 'infra-error'],
  ['while its report is printed', 'panic-slow', 'Modules linked in', 'reproduced'],
] as const)
  for (const signal of ['SIGKILL', 'SIGINT'] as const)
    test(`${signal} ${what}, resumed: ${outcome}`, (t) =>
      FaultBench.scripted(t, async (bench) => {
        await bench.script({ ...PANICS, 'compound-head': [mode, 'survive'] });
        const args = await bench.pair();
        const child = bench.start(args);
        const dir = await bench.until(until, 'compound-head');
        child.kill(signal);
        const { exitCode } = await child;
        if (signal === 'SIGINT') t.is(exitCode, 130);
        const said = await readFile(join(dir, 'serial.log'), 'latin1');
        const { code, run } = await resumed(bench, args);
        t.is(run.cells[1]?.trials[0]?.outcome, outcome, run.cells[1]?.trials[0]?.reason);
        // Whatever it had said is there still.
        t.true((await consoles(bench))[0]?.startsWith(said));
        const verdict = tested(run).verdict;
        // Where nothing was found, three survivors come after it.
        if (outcome === 'infra-error') {
          t.deepEqual(outcomes(run), ['infra-error', 'survived', 'survived', 'survived']);
          t.is(verdict, 'clean');
        } else {
          t.is(verdict, outcome === 'reproduced' ? 'panics' : 'inconclusive', tested(run).reason);
          t.is(code, outcome === 'reproduced' ? 1 : 3);
        }
        await bench.record(`harness ended by ${signal}`, what, `${outcome}; ${verdict}`);
      }));

test('SIGINT twice: ended at once, and the trial is there when the run goes on', (t) =>
  FaultBench.scripted(t, async (bench) => {
    await bench.script({ ...PANICS, 'compound-head': ['hang-with-heartbeat', 'survive'] });
    const args = await bench.pair();
    const child = bench.start(args);
    await bench.until('phase workload', 'compound-head');
    child.kill('SIGINT');
    child.kill('SIGINT');
    t.is((await child).exitCode, 130);
    const { run } = await resumed(bench, args);
    t.deepEqual(outcomes(run), ['infra-error', 'survived', 'survived', 'survived']);
    await bench.record('SIGINT twice', 'workload', 'infra-error; clean after three survivors');
  }));

for (const phase of ['boot', 'modules', 'target', 'login', 'mount', 'done'])
  test(`SIGKILL in phase ${phase}, resumed: the trial stays as one that was cut off`, (t) =>
    FaultBench.scripted(t, async (bench) => {
      await bench.script({ ...PANICS, 'compound-head': [`stalls@${phase}`, 'survive'] });
      const args = await bench.pair();
      const child = bench.start(args);
      await bench.until(
        phase === 'boot' ? ': up' : phase === 'done' ? 'done cycles' : `phase ${phase}`,
        'compound-head',
      );
      child.kill('SIGKILL');
      await child;
      const { run } = await resumed(bench, args);
      t.deepEqual(outcomes(run), ['infra-error', 'survived', 'survived', 'survived']);
      t.true(tested(run).trials[0]?.interrupted);
      await bench.record('harness killed', phase, 'infra-error; clean after three survivors');
    }));

test('killed again and again at random moments: no panic is lost, no trial counted twice', (t) =>
  FaultBench.scripted(t, async (bench) => {
    // A guest that was killed before it said anything has used up its turn: in the end one panics, and none may survive.
    await bench.script({ ...PANICS, 'compound-head': ['half-then-wait', 'half-then-wait', 'panic'] });
    const args = await bench.pair();
    let id: string | undefined;
    // On a busy host the first ones end it before it has a run to go on with.
    for (let round = 0; round < 6 || (id === undefined && round < 20); round++) {
      const child = bench.start([...args, ...(id ? ['--resume', id] : [])]);
      await new Promise((resolve) => setTimeout(resolve, 1500 + round * 700));
      child.kill('SIGKILL');
      await child;
      id = (await bench.runId()) || undefined;
    }
    const { run } = await resumed(bench, args);
    t.not(tested(run).verdict, 'clean');
    t.deepEqual(
      tested(run).trials.map(({ trial }) => trial),
      tested(run).trials.map((_, index) => index + 1),
    );
    // Every console that has a usercopy line is of a trial that says so.
    for (const [index, text] of (await consoles(bench)).entries())
      if (text.includes('usercopy:'))
        t.true(['other-crash', 'reproduced'].includes(outcomes(run)[index] ?? ''));
    await bench.nothingGreen();
    await bench.record(
      'harness killed',
      'six random moments',
      `${outcomes(run).join(', ')}; ${tested(run).verdict}`,
    );
  }));

test('the disk fills while a panic is printed: what is on it counts after resuming', (t) =>
  FaultBench.scripted(t, async (bench) => {
    await smallDisk(t, bench.results, 80);
    await bench.script({ ...PANICS, 'compound-head': ['panic-slow', 'survive'] });
    const args = await bench.pair();
    const child = bench.start(args);
    await bench.until('exposure attempt', 'compound-head');
    await execa('dd', ['if=/dev/zero', `of=${join(bench.results, 'fill')}`, 'bs=4k'], { reject: false });
    t.not((await child).exitCode, 0);
    await rm(join(bench.results, 'fill'));
    const { run } = await resumed(bench, args);
    t.true(['reproduced', 'other-crash'].includes(outcomes(run)[0] ?? ''), outcomes(run).join(' '));
    t.not(tested(run).verdict, 'clean');
    await execa('umount', [bench.results]);
    await bench.record('host disk full', 'panic', `${outcomes(run)[0]}; ${tested(run).verdict}`);
  }));

for (const [phase, until] of [
  ['modules', 'phase modules'],
  ['workload', 'phase workload'],
] as const)
  test(`the disk fills in phase ${phase}: the trial says nothing`, (t) =>
    FaultBench.scripted(t, async (bench) => {
      await smallDisk(t, bench.results, 80);
      await bench.script({ ...PANICS, 'compound-head': [`stalls@${phase}`] });
      const child = bench.start(await bench.pair());
      await bench.until(until, 'compound-head');
      await execa('dd', ['if=/dev/zero', `of=${join(bench.results, 'fill')}`, 'bs=4k'], { reject: false });
      t.not((await child).exitCode, 0);
      await rm(join(bench.results, 'fill'));
      await bench.nothingGreen();
      await execa('umount', [bench.results]);
      await bench.record('host disk full', phase, 'no outcome, or infra-error');
    }));

for (const left of [1, 3, 6, 20])
  test(`the disk fills but for ${left} KiB when the trial is over: no JSON is half-written, and the panic counts after resuming`, (t) =>
    FaultBench.scripted(t, async (bench) => {
      await smallDisk(t, bench.results, 80);
      await bench.script({ ...PANICS, 'compound-head': ['panic-slow', 'survive'] });
      const args = await bench.pair();
      const child = bench.start(args);
      await bench.until('Modules linked in', 'compound-head');
      const fill = join(bench.results, 'fill');
      await execa('dd', ['if=/dev/zero', `of=${fill}`, 'bs=1k'], { reject: false });
      await execa('truncate', ['-s', `-${left}K`, fill]);
      await child;
      await rm(fill);
      const { run } = await resumed(bench, args);
      t.is(outcomes(run)[0], 'reproduced', tested(run).trials[0]?.reason);
      t.is(tested(run).verdict, 'panics');
      await execa('umount', [bench.results]);
      await bench.record(`host disk full but for ${left} KiB`, 'outcome', 'reproduced');
    }));

test('results made read-only in mid-run: no outcome, and the run goes on when they can be written', (t) =>
  FaultBench.scripted(t, async (bench) => {
    await smallDisk(t, bench.results, 80);
    await bench.script({ ...PANICS, 'compound-head': ['stalls@workload', 'survive'] });
    const args = await bench.pair(QUICK);
    const child = bench.start(args);
    await bench.until('phase workload', 'compound-head');
    // Open files keep a mount from being made read-only by remount: the disk itself is shut off.
    await execa('mount', ['-o', 'remount,ro', bench.results], { reject: false });
    const { exitCode } = await child;
    t.not(exitCode, 0);
    await execa('mount', ['-o', 'remount,rw', bench.results], { reject: false });
    const { run } = await resumed(bench, args);
    t.not(outcomes(run)[0], 'survived');
    await execa('umount', [bench.results]);
    await bench.record('results read-only', 'workload', `${outcomes(run)[0]}`);
  }));

test('another owner of the run: refused while it lives; two runs in one results folder do not meet', (t) =>
  FaultBench.scripted(t, async (bench) => {
    await bench.script({ ...PANICS, 'compound-head': ['hang-with-heartbeat', 'survive'] });
    const args = await bench.pair();
    const first = bench.start(args);
    await bench.until('phase workload', 'compound-head');
    const same = await bench.command([...args, '--resume', await bench.runId()]);
    t.is(same.code, 2);
    t.regex(same.stderr, /another loopanic is at this run/);
    await bench.script({ ...PANICS, 'compound-head': ['survive'] });
    const second = await bench.command([...args, '--json']);
    t.is(second.code, 0, second.stderr);
    first.kill('SIGINT');
    t.is((await first).exitCode, 130);
    t.is((await readdir(bench.results)).length, 2);
    await bench.record('two harnesses', 'workload', 'refused; both runs whole');
  }));

test('a module that the kernel refuses is not tried again: it would be refused in every boot', (t) =>
  FaultBench.scripted(t, async (bench) => {
    await bench.script({ ...PANICS, 'compound-head': ['module-refused'] });
    const { code, stdout, stderr } = await bench.command([...(await bench.pair()), '--json']);
    t.is(code, 3, stderr);
    const run = JSON.parse(stdout) as RunDocument;
    t.deepEqual(outcomes(run), ['infra-error']);
    t.regex(tested(run).reason, /could not insert 'libiscsi_tcp'/);
  }));

test('modules whose names differ in + and _ only: a folder each', (t) =>
  FaultBench.scripted(t, async (bench) => {
    await bench.script({ '*': ['panic'] });
    const scenario = await bench.scenario(QUICK, undefined, 'xfs-loopback', 'a_b');
    const other = await bench.scenario(QUICK, undefined, 'xfs-loopback', 'a.b');
    const file = await bench.matrix(
      'plus',
      `kernels: [debian-6.1]\nmodules: [unpatched]\nscenarios: [${scenario}, ${other}]\n`,
    );
    await bench.command(['matrix', file, '--no-expectation-ok']);
    t.is((await bench.trials()).length, 2);
  }));

test('a panic without an expectation: exit 1, and a failure in TAP and JUnit, unless it is allowed', (t) =>
  FaultBench.scripted(t, async (bench) => {
    await bench.script(PANICS);
    const scenario = await bench.scenario(QUICK);
    const file = await bench.matrix(
      'noexp',
      `kernels: [debian-6.1]\nmodules: [unpatched]\nscenarios: [${scenario}]\n`,
    );
    const { code, stdout } = await bench.command(['matrix', file]);
    t.is(code, 1);
    t.regex(stdout, /NOT EXPECTED/);
    const id = await bench.runId();
    const report = async (...args: string[]) => (await bench.query('report', id, ...args)).stdout;
    t.regex(await report('--format', 'tap'), /^not ok 1/m);
    t.regex(await report('--format', 'junit'), /failures="1"/);
    t.regex(await report('--format', 'tap', '--no-expectation-ok'), /^ok 1/m);
    t.is((await bench.command(['matrix', file, '--no-expectation-ok'])).code, 0);
  }));

/** What somebody may do to a run's files: each is found when the run is read. */
const edits: [what: string, edit: (run: RunDocument) => void, pattern: RegExp][] = [
  [
    'a verdict',
    (run) => Object.assign(tested(run), { verdict: 'clean', trials: [], wantedTrials: 1 }),
    /its verdict is clean, but its trials make it/,
  ],
  [
    'all trials',
    (run) => {
      for (const trial of tested(run).trials) Object.assign(trial, { outcome: 'reproduced' });
    },
    /its verdict is|outcome\.json says/,
  ],
  [
    'an outcome',
    (run) => Object.assign(run.cells[0]?.trials[0] ?? {}, { outcome: 'survived' }),
    /statistics are not those|outcome\.json says outcome reproduced, not survived/,
  ],
  ['a missing trial', (run) => tested(run).trials.splice(1, 1), /trial 3 stands where trial 2 belongs/],
  [
    'a doubled trial',
    (run) => tested(run).trials.splice(1, 0, structuredClone(tested(run).trials[0]) as never),
    /trial 1 stands where trial 2 belongs/,
  ],
  [
    'a trial of another cell',
    (run) => Object.assign(tested(run).trials[0] ?? {}, structuredClone(run.cells[0]?.trials[0])),
    /trial 1 is of the module unpatched/,
  ],
  [
    'a folder elsewhere',
    (run) => Object.assign(tested(run).trials[0] ?? {}, { folder: '../../etc' }),
    /has its folder outside the run/,
  ],
  [
    'a trial of another program',
    (run) => Object.assign(tested(run).trials[0] ?? {}, { cellKey: 'x' }),
    /of another cell or program/,
  ],
  [
    'statistics',
    (run) => Object.assign(tested(run).statistics ?? {}, { missChance: 1e-6 }),
    /statistics are not those of its trials/,
  ],
  ['a cell twice', (run) => run.cells.push(structuredClone(run.cells[0]) as never), /is there twice/],
];

test('edited and damaged runs are refused wherever a run is read, with what is wrong', (t) =>
  FaultBench.scripted(t, async (bench) => {
    await bench.script({ ...PANICS, 'compound-head': ['survive'] });
    const args = await bench.pair();
    t.is((await bench.command(args)).code, 0);
    const id = await bench.runId();
    const file = join(bench.results, id, 'run.json');
    const whole = await readFile(file, 'utf8');
    for (const [what, edit, pattern] of edits) {
      const run = JSON.parse(whole) as RunDocument;
      edit(run);
      await writeFile(file, JSON.stringify(run));
      for (const command of [
        ['report', id, '--format', 'tap'],
        ['compare', id, id],
        [...args, '--resume', id],
      ]) {
        const { code, stderr } = await (command[0] === 'matrix'
          ? bench.command(command)
          : bench.query(...command));
        t.is(code, 2, `${what}: ${command[0]}: ${stderr}`);
        t.regex(stderr, pattern, what);
      }
      await bench.record('edited run.json', what, 'refused');
    }
    await writeFile(file, whole);
    // A trial's own file against run.json; and a folder that is gone, behind which nothing is removed.
    const [first = ''] = await bench.trials('compound-head');
    const outcome = await readFile(join(first, 'outcome.json'), 'utf8');
    await writeFile(join(first, 'outcome.json'), outcome.replace('"survived"', '"reproduced"'));
    t.regex(
      (await bench.query('report', id, '--format', 'tap')).stderr,
      /says outcome reproduced, not survived/,
    );
    await writeFile(join(first, 'outcome.json'), outcome.slice(0, 40));
    t.is((await bench.query('report', id, '--format', 'tap')).code, 2);
    // Both files agree, and the logs say something else.
    await writeFile(join(first, 'outcome.json'), outcome);
    const log = join(first, 'serial.log');
    const console = await readFile(log, 'latin1');
    await writeFile(log, console.replace('cycle 3 merged', 'cycle 4 merged'));
    const forged = await bench.command([...args, '--resume', id]);
    t.is(forged.code, 2);
    t.regex(forged.stderr, /says survived, but the trial's logs make it infra-error/);
    await writeFile(log, console);
    await rm(first, { recursive: true });
    const gone = await bench.command([...args, '--resume', id]);
    t.is(gone.code, 2);
    t.regex(gone.stderr, /trial-001\/outcome\.json is not there/);
    t.is((await bench.trials('compound-head')).length, 2);
    await bench.record('damaged trial folder', 'any', 'refused');
  }));

test('cells that differ from their control in a setting are negative controls: no chance is stated', (t) =>
  FaultBench.scripted(t, async (bench) => {
    await bench.script({ ...PANICS, 'compound-head': ['survive'] });
    const control = await bench.scenario(QUICK);
    const cells = [
      ['off', 'hardenedUsercopy: on', 'hardenedUsercopy: off', /kernel\.hardenedUsercopy \(off, not on\)/],
      ['flat', 'slubMinOrder: 3', 'slubMaxOrder: 0', /kernel\.slub.*Order/],
      [
        'debug',
        'slubMinOrder: 3',
        'slubMinOrder: 3\n  slubDebug: U,kmalloc-512',
        /kernel\.slubDebug \(U,kmalloc-512, not unset\)/,
      ],
    ] as const;
    const files = [];
    for (const [name, from, to] of cells)
      files.push(await bench.scenario(QUICK, (text) => text.replace(from, to), 'xfs-loopback', name));
    const file = await bench.matrix(
      'foreign',
      `kernels: [debian-6.1]\nmodules: [compound-head]\nscenarios: [${files.join(', ')}]\ncontrols: [{module: unpatched, scenario: ${control}}]\n`,
    );
    const { stdout } = await bench.command(['matrix', file, '--json']);
    const run = JSON.parse(stdout) as RunDocument;
    for (const [index, [, , , pattern]] of cells.entries()) {
      const cell = run.cells[index];
      t.is(cell?.verdict, 'clean', cell?.reason);
      t.regex(cell?.reason ?? '', /a negative control: it differs from its positive control in/);
      t.regex(cell?.reason ?? '', pattern);
      t.is(cell?.statistics?.missChance, null);
    }
  }));

test('a results folder that cannot be written to is told before anything is booted', (t) =>
  FaultBench.scripted(t, async (bench) => {
    await smallDisk(t, bench.results, 10);
    await bench.script('survive');
    const { code, stderr } = await bench.command(['run', await bench.scenario(QUICK)]);
    t.is(code, 2);
    t.regex(stderr, /MiB free, \d+ MiB needed/);
    await chmod(bench.results, 0o700);
    await execa('umount', [bench.results]);
    await bench.record('host disk full', 'before the run', 'refused');
  }));
