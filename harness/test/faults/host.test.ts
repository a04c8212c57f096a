import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import type { Outcome } from '../../outcome/outcome-schema.js';
import type { RunDocument } from '../../results/run-schema.js';
import { FaultBench, smallDisk } from '../support/fault-bench.js';

// Real guests, and what a host may do to them.
const USUAL = { silence: 60, stall: 180 };
/** What marks a phase on the console. */
const PHASES: [phase: string, marker: string][] = [
  ['boot', 'Linux version'],
  ['modules', 'phase modules'],
  ['target', 'phase target'],
  ['login', 'phase login'],
  ['mount', 'phase mount'],
  ['workload', 'phase workload'],
];
const short = (text: string): string => text.replace('cycles: 6', 'cycles: 2');

/** Starts `stock`, waits for a phase, does something to its QEMU, and tells the trial's end. */
async function during(
  bench: FaultBench,
  marker: string,
  act: (pid: number, dir: string) => Promise<void> | void,
  limits = USUAL,
  module = 'stock',
): Promise<{ code: number | undefined; run: RunDocument }> {
  const scenario = await bench.scenario(limits, short);
  const child = bench.start(['run', scenario, '--module', module, '--json']);
  const dir = await bench.until(marker);
  await act(bench.qemu(), dir);
  const { exitCode, stdout, stderr } = await child;
  bench.t.truthy(stdout, stderr);
  return { code: exitCode, run: JSON.parse(stdout) };
}
const trialOf = (run: RunDocument) => run.cells[0]?.trials[0];

for (const [phase, marker] of PHASES)
  test(`QEMU is killed in phase ${phase}`, (t) =>
    FaultBench.with(t, async (bench) => {
      const { code, run } = await during(bench, marker, (pid) => void process.kill(pid, 'SIGKILL'));
      t.is(code, 3);
      t.is(trialOf(run)?.outcome, 'infra-error', trialOf(run)?.reason);
      await bench.record('QEMU killed', phase, 'infra-error');
      await bench.nothingGreen();
    }));

for (const [phase, marker, outcome] of [
  ['boot', 'Linux version', 'no-boot'],
  ['login', 'phase login', 'hung'],
  ['workload', 'phase workload', 'hung'],
] as [string, string, Outcome][])
  test(`QEMU is stopped in phase ${phase} for longer than the limit`, (t) =>
    FaultBench.with(t, async (bench) => {
      const { run } = await during(bench, marker, (pid) => void process.kill(pid, 'SIGSTOP'), {
        silence: 4,
        stall: 30,
      });
      t.is(trialOf(run)?.outcome, outcome, trialOf(run)?.reason);
      await bench.record('QEMU stopped', phase, outcome);
      await bench.nothingGreen();
    }));

test('QEMU is stopped for less than the limit: the outcome is the same', (t) =>
  FaultBench.with(t, async (bench) => {
    const { run } = await during(bench, 'phase workload', async (pid) => {
      process.kill(pid, 'SIGSTOP');
      await new Promise((resolve) => setTimeout(resolve, 4000));
      process.kill(pid, 'SIGCONT');
    });
    t.is(trialOf(run)?.outcome, 'survived', trialOf(run)?.reason);
    await bench.record('QEMU stopped for 4 s', 'workload', 'survived, as without');
  }));

for (const [phase, marker] of PHASES.filter(([name]) => ['boot', 'workload'].includes(name)))
  test(`loopanic is killed in phase ${phase}: QEMU goes with it, and the run can go on`, (t) =>
    FaultBench.with(t, async (bench) => {
      const scenario = await bench.scenario(USUAL, short);
      const file = await bench.matrix(
        'one',
        `kernels: [debian-6.1]\nmodules: [stock]\nscenarios: [${scenario}]\n`,
      );
      const child = bench.start(['matrix', file]);
      const dir = await bench.until(marker);
      child.kill('SIGKILL');
      await child;
      const said = await readFile(join(dir, 'serial.log'), 'latin1');
      const { stdout, stderr } = await bench.command([
        'matrix',
        file,
        '--resume',
        await bench.runId(),
        '--json',
      ]);
      t.truthy(stdout, stderr);
      const run = JSON.parse(stdout) as RunDocument;
      t.deepEqual(
        run.cells[0]?.trials.map(({ outcome }) => outcome),
        ['infra-error', 'survived'],
      );
      t.true((await readFile(join(dir, 'serial.log'), 'latin1')).startsWith(said));
      await bench.record('loopanic killed', phase, 'infra-error; then survived');
    }));

test('loopanic is killed while the dump of a panic is written: the panic counts when the run goes on', (t) =>
  FaultBench.with(t, async (bench) => {
    const scenario = await bench.scenario(USUAL);
    const file = await bench.matrix(
      'one',
      `kernels: [debian-6.1]\nmodules: [unpatched]\nscenarios: [${scenario}]\nexpect: [{verdict: panics, why: reverted}]\n`,
    );
    bench.dump = 'kdump';
    const args = ['matrix', file];
    const child = bench.start(args);
    await bench.until('capture up');
    child.kill('SIGKILL');
    await child;
    const { code, stdout, stderr } = await bench.command([
      ...args,
      '--resume',
      await bench.runId(),
      '--json',
    ]);
    t.is(code, 0, stderr);
    const run = JSON.parse(stdout) as RunDocument;
    t.deepEqual(
      run.cells[0]?.trials.map(({ outcome }) => outcome),
      ['reproduced'],
    );
    await bench.record('loopanic killed', 'dump', 'reproduced');
  }));

test('SIGINT twice in a real boot: nothing is left', (t) =>
  FaultBench.with(t, async (bench) => {
    const child = bench.start(['run', await bench.scenario(USUAL, short), '--module', 'stock']);
    await bench.until('phase login');
    child.kill('SIGINT');
    child.kill('SIGINT');
    t.is((await child).exitCode, 130);
    await bench.nothingGreen();
    await bench.record('SIGINT twice', 'login', 'no outcome');
  }));

test('the disk of the results is full for a while: the trial says nothing, whatever the guest did', (t) =>
  FaultBench.with(t, async (bench) => {
    await smallDisk(t, bench.results, 90);
    const fill = join(bench.results, 'fill');
    const scenario = await bench.scenario(USUAL, short);
    const child = bench.start(['run', scenario, '--module', 'stock', '--json']);
    await bench.until('phase workload');
    await execa('dd', ['if=/dev/zero', `of=${fill}`, 'bs=64k'], { reject: false });
    await new Promise((resolve) => setTimeout(resolve, 2000));
    await rm(fill);
    t.is((await child).exitCode, 3);
    await bench.nothingGreen();
    await execa('umount', [bench.results]);
    await bench.record('host disk full for 2 s', 'workload', 'no outcome, or infra-error');
  }));

test('the clock of the host jumps both ways: no limit hangs on it', (t) =>
  FaultBench.with(t, async (bench) => {
    // Only what this process and its harness take for the time of day.
    const jump =
      'const real = Date.now; let n = 0; Date.now = () => real() + (n++ % 2 ? 864e5 : -864e5); const D = Date; globalThis.Date = class extends D { constructor(...a) { a.length ? super(...a) : super(D.now()); } };';
    bench.env.NODE_OPTIONS = `--import data:text/javascript,${encodeURIComponent(jump)}`;
    const { trial } = await bench.run(await bench.scenario(USUAL, short), '--module', 'stock');
    t.is(trial.outcome, 'survived', trial.reason);
    await bench.record('host clock jumps', 'all', 'survived, as without');
  }));
