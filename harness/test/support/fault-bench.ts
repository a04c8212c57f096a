import { readdirSync, readFileSync } from 'node:fs';
import { appendFile, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { execa } from 'execa';
import pLimit, { type LimitFunction } from 'p-limit';
import { exists, isExecutable } from '../../base/files.js';
import { cacheDir, packageRoot, scenariosDir } from '../../base/paths.js';
import { outcomeSchema, type TrialOutcome } from '../../outcome/outcome-schema.js';
import { type RunDocument, runSchema } from '../../results/run-schema.js';
import { loopanic, startLoopanic } from './cli.js';
import { tempDir } from './files.js';

/** Guests that are up at a time: ava starts all tests of a file at once. Scripted ones take little. */
const limits = { real: pLimit(2), scripted: pLimit(4) };

/** Time limits of a scenario, in seconds. */
export interface Limits {
  silence: number;
  stall: number;
}

/** A guest that is to stay as it is until the test has done its part is ended by no limit, however busy the host. */
const PATIENT: Limits = { silence: 300, stall: 600 };

/** One fault, its folder, and what must not be left behind. */
export class FaultBench {
  readonly t: ExecutionContext;
  readonly dir: string;
  /** Results folder of the runs. */
  results: string;
  env: Record<string, string> = {};
  /** How the bench's commands take dumps. */
  dump: 'none' | 'kdump' = 'none';
  /** Ids of the bench's commands: their scratch folders are looked for, those of benches beside it (which kill theirs) are not. */
  readonly #pids = new Set<number>();

  private constructor(t: ExecutionContext, dir: string) {
    this.t = t;
    this.dir = dir;
    this.results = join(dir, 'results');
  }

  /** Does `work` when there is room for a guest, then looks for leftovers. */
  static with(t: ExecutionContext, work: (bench: FaultBench) => Promise<void>): Promise<void> {
    return FaultBench.#when(limits.real, t, work);
  }

  /** The same for one whose guests are scripted. */
  static scripted(t: ExecutionContext, work: (bench: FaultBench) => Promise<void>): Promise<void> {
    return FaultBench.#when(limits.scripted, t, work);
  }

  static #when(
    room: LimitFunction,
    t: ExecutionContext,
    work: (bench: FaultBench) => Promise<void>,
  ): Promise<void> {
    t.timeout(10 * 60_000);
    return room(async () => {
      const bench = new FaultBench(t, await tempDir(t));
      const before = await hostState();
      await work(bench);
      await bench.#nothingLeft(before);
    });
  }

  /** A QEMU that does as it is told: one behaviour for all, or one for each trial of each module. */
  async script(plan: string | Record<string, string[]>): Promise<void> {
    const bin = join(this.dir, 'bin');
    const qemu = join(bin, 'qemu-system-x86_64');
    const fake = join(packageRoot, 'dist/test/support/fake-qemu.js');
    await mkdir(bin, { recursive: true });
    if (!(await isExecutable(qemu)))
      await writeFile(qemu, `#!/bin/sh\nexec '${process.execPath}' '${fake}' "$@"\n`, { mode: 0o755 });
    const file = join(this.dir, 'plan-of-boots.json');
    await writeFile(file, JSON.stringify(typeof plan === 'string' ? { '*': [plan] } : plan));
    Object.assign(this.env, { PATH: `${bin}:${process.env.PATH}`, FAKE_QEMU_PLAN: file });
  }

  /** xfs-loopback (or another scenario) in a file of its own, with other time limits and other words. */
  async scenario(
    limits: Limits,
    change = (text: string): string => text,
    template = 'xfs-loopback',
    name = 'quick',
  ): Promise<string> {
    const text = await readFile(join(scenariosDir, `${template}.yaml`), 'utf8');
    const file = join(this.dir, `${name}.yaml`);
    const short = `limits:\n  silenceSeconds: ${limits.silence}\n  stallSeconds: ${limits.stall}\n`;
    // One that is like another may have none of its own.
    const own = /limits:\n(?: {2}.*\n)*/;
    await writeFile(file, change(own.test(text) ? text.replace(own, short) : `${text}\n${short}`));
    return file;
  }

  /** A workload beside the scenarios: ag-sweep with other steps, or a script of its own. */
  async workload(name: string, script: string): Promise<void> {
    const dir = join(this.dir, 'workloads', name);
    await mkdir(dir, { recursive: true });
    for (const part of ['pair.pl', 'shuffle.pl', 'sweep.pl'])
      await writeFile(join(dir, part), await readFile(join(scenariosDir, 'workloads/ag-sweep', part)));
    await writeFile(join(dir, 'run'), script, { mode: 0o755 });
  }

  /** Arguments that every command of the bench has. */
  #common(): string[] {
    return ['--accel', 'tcg', '--dump', this.dump, '--results', this.results];
  }

  #options() {
    return { env: this.env, timeoutSeconds: 400, onStart: (pid: number) => this.#pids.add(pid) };
  }

  async run(
    scenario: string,
    ...more: string[]
  ): Promise<{ code: number; trial: TrialOutcome; run: RunDocument }> {
    const args = ['run', scenario, ...this.#common(), '--json', ...more];
    const { code, stdout, stderr } = await loopanic(args, this.#options());
    this.t.truthy(stdout, stderr);
    const run = runSchema.parse(JSON.parse(stdout));
    return { code, run, trial: run.cells[0]?.trials[0] as TrialOutcome };
  }

  command(args: string[]) {
    return loopanic([...args, ...this.#common()], this.#options());
  }

  /** A command that boots nothing. */
  query(...args: string[]) {
    return loopanic([...args, '--results', this.results], this.#options());
  }

  start(args: string[]) {
    const child = startLoopanic([...args, ...this.#common()], this.env);
    if (child.pid !== undefined) this.#pids.add(child.pid);
    return child;
  }

  /** Arguments of a matrix: a control, and a module under test that is expected to be clean. Scripted guests have no reading: three survivors are proof. */
  async pair(limits: Limits = PATIENT): Promise<string[]> {
    const scenario = await this.scenario(limits);
    const file = await this.matrix(
      'pair',
      `kernels: [debian-6.1]
modules: [unpatched, compound-head]
scenarios: [${scenario}]
controls: [{module: unpatched, scenario: ${scenario}}]
expect:
  - {module: unpatched, verdict: panics, why: control}
  - {module: compound-head, verdict: clean, why: fix}
`,
    );
    return ['matrix', file];
  }

  async matrix(name: string, text: string): Promise<string> {
    const file = join(this.dir, `${name}.matrix.yaml`);
    await writeFile(file, text);
    return file;
  }

  /** Waits until a trial's console has `text`, and returns the trial's folder. */
  async until(text: string, cell = '', seconds = 100): Promise<string> {
    const end = performance.now() + seconds * 1000;
    while (performance.now() < end) {
      for (const dir of await this.trials(cell)) {
        const log = await readFile(join(dir, 'serial.log'), 'latin1').catch(() => '');
        if (log.includes(text)) return dir;
      }
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    throw new Error(`no console said "${text}" within ${seconds} s`);
  }

  /** Folders of all trials, of cells whose folder's name has `cell` in it. */
  async trials(cell = ''): Promise<string[]> {
    const found: string[] = [];
    for (const run of await readdir(this.results).catch(() => []))
      for (const name of await readdir(join(this.results, run, 'cells')).catch(() => []))
        if (name.includes(cell))
          for (const trial of await readdir(join(this.results, run, 'cells', name)))
            found.push(join(this.results, run, 'cells', name, trial));
    return found.sort();
  }

  /** Id of the only run that has come to its trials. */
  async runId(): Promise<string> {
    for (const id of await readdir(this.results).catch(() => []))
      if (await exists(join(this.results, id, 'run.json'))) return id;
    return '';
  }

  /** Process id of the QEMU of this bench's guest. */
  qemu(): number {
    const [pid] = processesWith(this.results).filter(
      (entry) => commandOf(entry).startsWith('qemu-system') || commandOf(entry).includes('/qemu-system'),
    );
    if (pid === undefined) throw new Error('no QEMU is up');
    return pid;
  }

  /** The table of the suite: a line for each pair of fault and phase. */
  async record(fault: string, phase: string, outcome: string): Promise<void> {
    const { LOOPANIC_FAULT_TABLE } = process.env;
    if (LOOPANIC_FAULT_TABLE)
      await appendFile(LOOPANIC_FAULT_TABLE, `| ${fault} | ${phase} | ${outcome} | none |\n`);
  }

  /** No verdict or outcome of the bench's runs is green, and every JSON file is whole. */
  async nothingGreen(): Promise<void> {
    for (const run of await readdir(this.results).catch(() => [])) {
      const text = await readFile(join(this.results, run, 'run.json'), 'utf8').catch(() => null);
      if (text === null) continue;
      const document = runSchema.parse(JSON.parse(text));
      for (const cell of document.cells) this.t.not(cell.verdict, 'clean', cell.reason);
    }
    for (const dir of await this.trials()) {
      const text = await readFile(join(dir, 'outcome.json'), 'utf8').catch(() => null);
      if (text === null) continue;
      const { outcome, reason } = outcomeSchema.parse(JSON.parse(text));
      this.t.not(outcome, 'survived', reason);
    }
  }

  async #nothingLeft(before: HostState): Promise<void> {
    const { t } = this;
    // A killed process is gone when its parent has heard of it.
    const end = performance.now() + 5000;
    while (processesWith(this.dir).length > 0 && performance.now() < end)
      await new Promise((resolve) => setTimeout(resolve, 50));
    t.deepEqual(processesWith(this.dir).map(commandOf), [], 'processes');
    const after = await hostState();
    t.deepEqual(
      after.mounts.filter((line) => line.includes(this.dir)),
      [],
      'mounts',
    );
    t.deepEqual(after.loops, before.loops, 'loop devices');
    for (const name of await readdir(this.results, { recursive: true }).catch(() => []))
      t.notRegex(name, /\.tmp$/, 'a half-written file');
    t.deepEqual(
      after.scratch.filter((name) => this.#pids.has(ownerOf(name)) && !before.scratch.includes(name)),
      [],
      'scratch folders',
    );
  }
}

interface HostState {
  mounts: string[];
  loops: string;
  scratch: string[];
}

async function hostState(): Promise<HostState> {
  const { stdout } = await execa('losetup', ['--list', '--noheadings'], { reject: false });
  const names = async (dir: string, prefix: string): Promise<string[]> =>
    (await readdir(dir).catch(() => [])).filter((name) => name.startsWith(prefix));
  return {
    mounts: (await readFile('/proc/mounts', 'utf8')).split('\n'),
    loops: stdout ?? '',
    scratch: await names(cacheDir('tmp'), ''),
  };
}

/** Id of the process that made a scratch folder, from its name: `space-pid-purpose-random`. */
function ownerOf(name: string): number {
  return Number(name.split('-')[1]);
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ').trim();
  } catch {
    return '';
  }
}

/** Processes whose command line or environment has this path in it, this one and zombies left out. */
export function processesWith(path: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .map(Number)
    .filter((pid) => commandOf(pid).includes(path));
}

/** A small file system in memory at `path`; unmounted when the test ends. */
export async function smallDisk(t: ExecutionContext, path: string, mib: number): Promise<void> {
  await mkdir(path, { recursive: true });
  await execa('mount', ['-t', 'tmpfs', '-o', `size=${mib}m`, 'loopanic-test', path]);
  t.teardown(() => execa('umount', ['-l', path], { reject: false }).then(() => undefined));
}
