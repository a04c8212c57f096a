import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type RunCell, type RunDocument, type RunTrial, runSchema } from '../../results/run-schema.js';
import { workThrough } from '../../run/work-through.js';

// The scheduler of a run (run/work-through.ts: who waits for which control, when a cell is decided, what is tried again) against pretended
// workers in compressed time. Outcomes and durations are drawn from the trials of real runs, which are the arguments: folders with run.json.
// Prints a table: time against the ideal, which is all work that came to an end divided by what all workers can do while they are up. Redis, HTTP and the disk are not
// part of it.

/** Virtual seconds: when all that can be done now is done, the next event comes. */
class Clock {
  now = 0;
  readonly #events: { at: number; order: number; run: () => void }[] = [];
  #order = 0;

  sleep(seconds: number): Promise<void> {
    return new Promise((resolve) => {
      const event = { at: this.now + seconds, order: this.#order++, run: resolve };
      // Binary insertion: the next event stands last.
      let [low, high] = [0, this.#events.length];
      while (low < high) {
        const middle = (low + high) >> 1;
        const other = this.#events[middle] as typeof event;
        if (other.at > event.at || (other.at === event.at && other.order > event.order)) low = middle + 1;
        else high = middle;
      }
      this.#events.splice(low, 0, event);
    });
  }

  async run(work: Promise<unknown>): Promise<void> {
    let isOver = false;
    work.finally(() => {
      isOver = true;
    });
    while (!isOver) {
      await new Promise((resolve) => setImmediate(resolve));
      const event = this.#events.pop();
      if (!event) continue;
      this.now = event.at;
      event.run();
    }
    await work;
  }
}

/** Repeatable random numbers: mulberry32. */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

interface Worker {
  /** 1: as the host that the trials were measured on. */
  speed: number;
  diesAt: number;
}

interface Trouble {
  name: string;
  /** So many of the workers take three times as long. */
  stragglers: number;
  /** Seconds between two deaths of one worker; it is back after ten minutes. */
  lifeSeconds: number;
  /** Share of trials that fail around the guest. */
  failures: number;
}

const WORKERS = 100;
const GROUPS = 1000;
const CELLS_OF_A_GROUP = 10;
/** Until a worker that died is missed (queue/protocol.ts: HUNG_UP_SECONDS), and until it is back. */
const MISSED_SECONDS = 12;
const AWAY_SECONDS = 600;
/** Between a trial's end and the next one on the same worker. */
const HANDOUT_SECONDS = 0.5;

const TROUBLES: Trouble[] = [
  { name: 'none', stragglers: 0, lifeSeconds: Number.POSITIVE_INFINITY, failures: 0 },
  {
    name: 'ten workers of a third of the speed',
    stragglers: 10,
    lifeSeconds: Number.POSITIVE_INFINITY,
    failures: 0,
  },
  { name: 'each worker dies once in 20 minutes', stragglers: 0, lifeSeconds: 1200, failures: 0 },
  {
    name: '5 % of trials fail around the guest',
    stragglers: 0,
    lifeSeconds: Number.POSITIVE_INFINITY,
    failures: 0.05,
  },
  { name: 'all of these', stragglers: 10, lifeSeconds: 1200, failures: 0.05 },
];

async function measuredTrials(): Promise<{
  panics: RunTrial[];
  survivors: RunTrial[];
  template: RunDocument;
}> {
  const runs = await Promise.all(
    process.argv.slice(2).map(async (dir) => {
      const text = await readFile(join(dir, 'run.json'), 'utf8');
      return runSchema.parse(JSON.parse(text));
    }),
  );
  const trials = runs.flatMap(({ cells }) => cells.flatMap((cell) => cell.trials));
  const [template] = runs;
  const read = trials.filter(({ gate }) => gate !== null && gate.lost === 0);
  const panics = read.filter(({ outcome }) => outcome === 'reproduced');
  const survivors = read.filter(({ outcome, gate }) => outcome === 'survived' && gate?.leaked === 0);
  if (!template || panics.length === 0 || survivors.length === 0)
    throw new Error('give folders of runs that have panics and clean survivors with readings');
  return { panics, survivors, template };
}

const seconds = ({ timings }: RunTrial): number => timings.dumped ?? timings.outcome ?? 30;

async function simulate(trouble: Trouble, seed: number): Promise<string[]> {
  const { panics, survivors, template } = await measuredTrials();
  const random = randomOf(seed);
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
  // One scenario throughout: readings are compared between a cell and its control.
  const times = (name: string): number => survivors.filter(({ scenario }) => scenario === name).length;
  const [panic] = [...panics].sort((a, b) => times(b.scenario) - times(a.scenario)) as [RunTrial];
  const alike = ({ scenario, gate }: RunTrial): boolean =>
    scenario === panic.scenario && gate?.probe === panic.gate?.probe;
  const [panicking, surviving] = [panics.filter(alike), survivors.filter(alike)];
  if (surviving.length === 0) throw new Error(`no clean survivor of ${panic.scenario} was measured`);
  const source = template.cells.find((cell) => cell.scenario === panic.scenario) as RunCell;
  const cells: RunCell[] = [];
  const good = new Set<RunCell>();
  for (let group = 0; group < GROUPS; group++)
    for (let index = 0; index < CELLS_OF_A_GROUP; index++) {
      const control = { kernel: `k${group}`, module: 'm0', scenario: panic.scenario };
      const cell: RunCell = {
        ...source,
        kernel: control.kernel,
        module: `m${index}`,
        control: index === 0 ? null : control,
        isControl: index === 0,
        verdict: null,
        statistics: null,
        provenBy: null,
        warnings: [],
        wantedTrials: 5,
        durationSeconds: 0,
        trials: [],
      };
      delete cell.expected;
      cells.push(cell);
      // One in five modules is as bad as the control.
      if (index > 0 && index % 5 !== 0) good.add(cell);
    }
  const document: RunDocument = {
    ...template,
    confidence: 0.99,
    retries: 2,
    request: { ...template.request, byReading: true },
    cells,
  };
  const clock = new Clock();
  const idle: Worker[] = Array.from({ length: WORKERS }, (_, index) => ({
    speed: index < trouble.stragglers ? 1 / 3 : 1,
    diesAt: -Math.log(1 - random()) * trouble.lifeSeconds,
  }));
  // What a worker that dies does meanwhile counts for nothing, as long as it is away.
  const { lifeSeconds } = trouble;
  const isUp = Number.isFinite(lifeSeconds) ? lifeSeconds / (lifeSeconds + MISSED_SECONDS + AWAY_SECONDS) : 1;
  const capacity = isUp * idle.reduce((sum, { speed }) => sum + speed, 0);
  const queues: ((worker: Worker) => void)[][] = [[], []];
  const dispatch = (): void => {
    for (;;) {
      const queue = queues.find((list) => list.length > 0);
      if (!queue || idle.length === 0) return;
      queue.shift()?.(idle.shift() as Worker);
    }
  };
  const free = (worker: Worker, after: number): void =>
    void clock.sleep(after).then(() => {
      idle.push(worker);
      dispatch();
    });
  let [work, lost, failed, trials] = [0, 0, 0, 0];
  const run = workThrough(document, cells, {
    slots: Number.POSITIVE_INFINITY,
    confidence: 0.99,
    byReading: true,
    isStopped: () => false,
    halt: () => {},
    begin: async () => {},
    aimed: () => {},
    finished: async () => {},
    trial: async (cell, isAwaited, judged) => {
      const worker = await new Promise<Worker>((resolve) => {
        queues[isAwaited ? 0 : 1]?.push(resolve);
        dispatch();
      });
      trials++;
      const drawn = pick(good.has(cell) ? surviving : panicking);
      const took = seconds(drawn) / worker.speed;
      const own = {
        ...drawn,
        ...{ kernel: cell.kernel, module: cell.module, cellKey: cell.key },
        ...{ trial: cell.trials.length + 1, folder: '', analysis: null, dump: null },
      };
      const nothing = {
        ...{ outcome: 'infra-error' as const, signature: null, gate: null, evidence: [], warnings: [] },
      };
      if (clock.now + took > worker.diesAt) {
        await clock.sleep(Math.max(0, worker.diesAt - clock.now) + MISSED_SECONDS);
        lost++;
        worker.diesAt = clock.now + AWAY_SECONDS - Math.log(1 - random()) * trouble.lifeSeconds;
        free(worker, AWAY_SECONDS);
        cell.trials.push({ ...own, ...nothing, interrupted: true });
      } else {
        await clock.sleep(took);
        work += seconds(drawn);
        free(worker, HANDOUT_SECONDS);
        const fails = random() < trouble.failures;
        if (fails) failed++;
        cell.trials.push(fails ? { ...own, ...nothing } : own);
      }
      judged();
      return true;
    },
  });
  await clock.run(run);
  const right = cells.filter((cell) => cell.verdict === (good.has(cell) ? 'clean' : 'panics')).length;
  const wrong = cells.filter((cell) => cell.verdict === (good.has(cell) ? 'panics' : 'clean')).length;
  const ideal = work / capacity;
  const minutes = (value: number): string => (value / 60).toFixed(1);
  return [
    trouble.name,
    `${trials}`,
    `${lost}`,
    `${failed}`,
    minutes(clock.now),
    minutes(ideal),
    (clock.now / ideal).toFixed(3),
    `${right} right, ${wrong} wrong, ${cells.length - right - wrong} undecided`,
  ];
}

const rows = [
  ['trouble', 'trials', 'lost with a worker', 'failed', 'minutes', 'ideal', 'ratio', 'verdicts'],
  ['---', '---', '---', '---', '---', '---', '---', '---'],
];
for (const [index, trouble] of TROUBLES.entries()) {
  rows.push(await simulate(trouble, index + 1));
  process.stderr.write(`${rows.at(-1)?.join(' | ')}\n`);
}
process.stdout.write(`${rows.map((row) => `| ${row.join(' | ')} |`).join('\n')}\n`);
