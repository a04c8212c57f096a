import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { Queue } from 'bullmq';
import type { Redis } from 'ioredis';
import { firstLine, InfraError } from '../base/errors.js';
import type { Progress } from '../base/progress.js';
import type { Place, Runner, WantedTrial } from '../run/runner.js';
import type { TrialPlan } from '../trial/plan.js';
import type { TrialCallbacks } from '../trial/run-trial.js';
import type { AccelChoice } from '../vm/accel.js';
import { CoordinatorServer } from './coordinator-server.js';
import { Offer } from './offer.js';
import { PendingTrial } from './pending-trial.js';
import {
  type Assignment,
  MOST_LOST,
  ownVersion,
  type Parts,
  type Ticket,
  type Version,
  versionText,
} from './protocol.js';
import {
  announce,
  bounded,
  connectRedis,
  LAST_ANSWER_SECONDS,
  queueName,
  shownUrl,
  withdraw,
} from './redis.js';
import { ableWorkers, accelOf, labelText, type QueueOptions } from './workers.js';

/** Milliseconds between two looks at workers and tickets. */
const LOOK_MS = 2000;
/** A ticket that was handed out, and whose worker never came, is written anew after so many seconds. */
const HANDOUT_SECONDS = 20;
/** What workers get to end their trials, when the run is stopped. */
const STOP_SECONDS = 20;
/** Hosts that may refuse trials of one cell; and refusals in all, where there are fewer hosts. */
const MOST_REFUSALS = { hosts: 3, inAll: 6 };
/** Tickets that vanish in a row before it is said. */
const MOST_STRANGERS = 3;
/** Tickets of which something is known already go first. */
const LATER = 10;

/** A trial that is to be handed out, or was. */
interface Waiting {
  id: string;
  wanted: WantedTrial;
  /** When it was seen there last: milliseconds, monotonic. */
  offered: number;
  /** A worker has asked for it, and its parts are looked at. */
  isHandedOut: boolean;
  taken: (place: Place | null) => void;
  failed: (error: unknown) => void;
}

/** A trial with a worker. */
interface Taken {
  host: Place['host'];
  parts: Parts;
  cellKey: string;
  /** Once its run has made a plan for it. */
  trial: PendingTrial | null;
  assigned: Promise<Assignment>;
}

/**
 * Hands a run's trials to workers. The queue only says that a trial waits: which worker has it is decided here, once, and all that follows
 * goes between the two over HTTP; so a Redis that is restarted, gone or emptied delays what waits and touches nothing that runs.
 */
export class QueueRunner implements Runner {
  readonly slots = Number.POSITIVE_INFINITY;
  readonly accel: AccelChoice;
  readonly #run: string;
  readonly #options: QueueOptions;
  readonly #version: Version;
  readonly #redis: Redis;
  readonly #queue: Queue<Ticket>;
  readonly #server: CoordinatorServer;
  readonly #progress: Progress;
  readonly #offer = new Offer();
  readonly #waiting = new Map<string, Waiting>();
  /** Jobs in the queue that nobody has taken, by trial. */
  readonly #jobs = new Map<string, string>();
  readonly #taken = new Map<string, Taken>();
  /** Workers that were lost with a trial of a cell, by the cell's key. */
  readonly #lost = new Map<string, number>();
  /** Workers that could not run a trial of a cell. */
  readonly #refused = new Map<string, string[]>();
  readonly #told = new Set<string>();
  /** Tickets that were handed out in a row, and nobody came. */
  #strangers = 0;
  #timer: NodeJS.Timeout | undefined;
  #looking = false;
  #lastLook = performance.now();
  #lastHope = performance.now();
  #isEnding = false;

  private constructor(
    run: string,
    options: QueueOptions,
    version: Version,
    redis: Redis,
    accel: AccelChoice,
    server: CoordinatorServer,
    progress: Progress,
  ) {
    this.#run = run;
    this.#options = options;
    this.#version = version;
    this.#redis = redis;
    this.accel = accel;
    this.#server = server;
    this.#progress = progress;
    this.#queue = new Queue(queueName(version, accel.accel, options.label), { connection: redis });
    this.#queue.on('error', () => {});
  }

  /** Throws InfraError if Redis cannot be reached, or if no worker comes. */
  static async start(
    run: string,
    options: QueueOptions,
    signal: AbortSignal,
    progress: Progress,
  ): Promise<QueueRunner> {
    const redis = await connectRedis(options.url);
    try {
      const version = await ownVersion();
      const accel = await accelOf(redis, options, version, signal, progress);
      const server = await CoordinatorServer.listen(options.listen);
      const runner = new QueueRunner(run, options, version, redis, accel, server, progress);
      server.serve(runner.#service());
      // Before the first ticket: workers throw away those of runs that are not there.
      await runner.#announce();
      runner.#timer = setInterval(() => void runner.#look(), LOOK_MS);
      progress.line(`queue ${shownUrl(options.url)}: workers reach this run at ${server.url}`);
      return runner;
    } catch (error) {
      redis.disconnect();
      throw error;
    }
  }

  async place(wanted: WantedTrial, signal: AbortSignal): Promise<Place | null> {
    if (signal.aborted) return null;
    const id = randomBytes(12).toString('hex');
    return new Promise<Place | null>((resolve, reject) => {
      const stop = (): void => settle(() => resolve(null));
      const settle = (how: () => void): void => {
        signal.removeEventListener('abort', stop);
        this.#waiting.delete(id);
        how();
      };
      signal.addEventListener('abort', stop, { once: true });
      const waiting: Waiting = {
        id,
        wanted,
        offered: performance.now(),
        isHandedOut: false,
        taken: (place) => settle(() => resolve(place)),
        failed: (error) => settle(() => reject(error)),
      };
      this.#waiting.set(id, waiting);
      // A Redis that is away is asked again at the next look.
      void this.#write(waiting).catch(() => {});
    });
  }

  async end(): Promise<void> {
    this.#isEnding = true;
    clearInterval(this.#timer);
    await this.#server.close();
    // Not waited for where Redis is away: who takes such a ticket finds nobody at its address.
    if (this.#redis.status === 'ready') {
      const gone = [...this.#jobs.values()].map((job) => this.#queue.remove(job));
      const all = [withdraw(this.#redis, 'run', this.#run), ...gone];
      await bounded(Promise.allSettled(all), LAST_ANSWER_SECONDS).catch(() => {});
    }
    // At once: what a silent Redis was asked is not waited for.
    this.#redis.disconnect();
    void this.#queue.close().catch(() => {});
  }

  /** Puts a ticket into the queue. */
  async #write(waiting: Waiting): Promise<void> {
    const { id, wanted } = waiting;
    waiting.offered = performance.now();
    const ticket: Ticket = {
      run: this.#run,
      url: this.#server.url,
      token: this.#server.token,
      trial: id,
    };
    const { id: job } = await bounded(
      this.#queue.add('trial', ticket, {
        removeOnComplete: true,
        removeOnFail: true,
        ...(wanted.isAwaited ? {} : { priority: LATER }),
      }),
    );
    if (job === undefined) return;
    if (!this.#taken.has(id)) this.#jobs.set(id, job);
  }

  /** Who is there, who is gone, and whether what waits is still in the queue. */
  async #look(): Promise<void> {
    const now = performance.now();
    const late = now - this.#lastLook - LOOK_MS;
    this.#lastLook = now;
    // This process was held up: what workers said meanwhile has yet to be read.
    if (late > LOOK_MS) for (const { trial } of this.#taken.values()) if (trial) trial.lastBeat += late;
    try {
      await this.#bury();
    } catch (error) {
      this.#tellOnce(`bury ${firstLine(error)}`, `queue: ${firstLine(error)}`);
    }
    if (this.#taken.size > 0 || this.#waiting.size === 0) this.#lastHope = now;
    else this.#hope();
    if (this.#looking || this.#isEnding) return;
    this.#looking = true;
    try {
      if (this.#redis.status === 'ready') await this.#lookAtQueue();
      else this.#tellOnce('redis', `${shownUrl(this.#options.url)} does not answer: what runs goes on`);
    } catch (error) {
      if (!this.#isEnding) this.#tellOnce('redis', `queue: ${firstLine(error)}: what runs goes on`);
    } finally {
      this.#looking = false;
    }
  }

  #announce(): Promise<void> {
    const record = { version: this.#version, run: this.#run, hostname: hostname() };
    return announce(this.#redis, 'run', this.#run, record);
  }

  async #lookAtQueue(): Promise<void> {
    if (this.#told.delete('redis')) this.#progress.line(`${shownUrl(this.#options.url)} answers again`);
    await this.#announce();
    const workers = await ableWorkers(this.#redis, this.#options, this.#version, (key, line) =>
      this.#tellOnce(key, line),
    );
    const able = workers.filter(({ accel }) => accel === this.accel.accel).length;
    if (able > 0) {
      // Workers that take tickets and never come cannot reach this run.
      if (this.#strangers < MOST_STRANGERS) this.#lastHope = performance.now();
      this.#told.delete('none');
    } else if (this.#waiting.size > 0)
      this.#tellOnce('none', `${this.#waiting.size} trials wait for a worker`);
    let vanished = false;
    const there = new Set(await bounded(this.#queue.getRanges(['waiting', 'prioritized'])));
    for (const waiting of [...this.#waiting.values()]) {
      const job = this.#jobs.get(waiting.id);
      if (job !== undefined && there.has(job)) waiting.offered = performance.now();
      // Flushed, or handed to a worker that never came.
      else if (!waiting.isHandedOut && performance.now() - waiting.offered > HANDOUT_SECONDS * 1000) {
        if (able > 0 && job !== undefined) vanished = true;
        await this.#write(waiting);
      }
    }
    if (vanished && ++this.#strangers >= MOST_STRANGERS)
      this.#tellOnce(
        'strangers',
        `workers take this run's tickets and do not come for the trials: can they reach ${this.#server.url}? (--listen)`,
      );
  }

  /** Gives up when there has been nothing to hope for, for too long. */
  #hope(): void {
    const { patienceSeconds, url } = this.#options;
    if (performance.now() - this.#lastHope < patienceSeconds * 1000) return;
    const what =
      this.#redis.status === 'ready'
        ? `no worker for ${this.accel.accel}${labelText(this.#options.label)} of ${versionText(this.#version)}`
        : 'it did not answer';
    const error = new InfraError(
      'no-worker',
      `queue ${shownUrl(url)}: ${what} for ${patienceSeconds} s: what was run is kept; go on with --resume ${this.#run}`,
    );
    for (const waiting of [...this.#waiting.values()]) waiting.failed(error);
  }

  /** Trials whose worker has not been heard of for too long. */
  async #bury(): Promise<void> {
    const lost = [...this.#taken.values()].filter(
      ({ trial }) => trial && silenceOf(trial) >= trial.patienceSeconds,
    );
    // Most of several at once: it is this host, or its network, that was away.
    const isOwnFault = lost.length > 1 && 2 * lost.length > this.#taken.size;
    for (const [id, taken] of this.#taken) {
      const { trial, host } = taken;
      const silence = trial ? silenceOf(trial) : 0;
      if (!trial || silence < trial.patienceSeconds) continue;
      const wasRunning = trial.isRunning;
      this.#taken.delete(id);
      if (!wasRunning) {
        this.#progress.line(`its worker on ${host.name} was lost before it had sent the dump`);
        await trial.lost({ why: 'cut-off' });
        continue;
      }
      const count = (this.#lost.get(taken.cellKey) ?? 0) + (isOwnFault ? 0 : 1);
      this.#lost.set(taken.cellKey, count);
      const worker = `its worker on ${host.name} was lost (not heard of for ${Math.round(silence)} s)`;
      await trial.lost({ why: 'cut-off', worker }, count >= MOST_LOST);
    }
  }

  /** What workers may ask of this run. */
  #service() {
    const runningOf = (id: string): PendingTrial | null => {
      const trial = this.#taken.get(id)?.trial ?? null;
      return trial?.isOpen ? trial : null;
    };
    return {
      version: this.#version,
      accel: this.accel.accel,
      take: (id: string, host: Place['host']): Promise<Assignment | 'taken' | 'gone'> => this.#take(id, host),
      refuse: (id: string, why: string): void => this.#refuse(id, why),
      abandon: (id: string, worker: string, isFault: boolean): Promise<void> =>
        this.#abandon(id, worker, isFault),
      openPart: (sha256: string) => this.#offer.open(sha256),
      disk: (key: string) => this.#offer.disk(key),
      openDisk: (key: string) => this.#offer.openDisk(key),
      trial: runningOf,
    };
  }

  /** Gives a trial to the first worker that asks; all others come too late. */
  async #take(id: string, host: Place['host']): Promise<Assignment | 'taken' | 'gone'> {
    const waiting = this.#waiting.get(id);
    if (!waiting || waiting.isHandedOut || this.#isEnding)
      return waiting || this.#taken.has(id) ? 'taken' : 'gone';
    waiting.isHandedOut = true;
    this.#jobs.delete(id);
    this.#strangers = 0;
    const { parts } = waiting.wanted;
    let offered: Parts;
    try {
      offered = await this.#offer.add(parts);
    } catch (error) {
      waiting.failed(
        new InfraError('part-lost', `a part of the trial cannot be read: ${firstLine(error)}`, error),
      );
      throw error;
    }
    if (!this.#waiting.delete(id)) return 'gone';
    let assign: (assignment: Assignment) => void = () => {};
    const taken: Taken = {
      host,
      cellKey: parts.key,
      parts: offered,
      trial: null,
      assigned: new Promise((resolve) => {
        assign = resolve;
      }),
    };
    this.#taken.set(id, taken);
    const start = async (plan: TrialPlan, dir: string, callbacks: TrialCallbacks): Promise<PendingTrial> => {
      const trial = new PendingTrial(plan, dir, callbacks);
      await trial.start();
      taken.trial = trial;
      assign({ plan, parts: taken.parts });
      void trial.dumped.then(() => this.#taken.delete(id));
      // What ends by itself takes no worker with it.
      trial.onEnd = () => {
        this.#lost.delete(taken.cellKey);
        this.#refused.delete(taken.cellKey);
      };
      return trial;
    };
    let trial: PendingTrial | undefined;
    const signalOf: { current?: AbortSignal } = {};
    waiting.taken({
      host,
      run: async (plan, dir, signal, callbacks) => {
        signalOf.current = signal;
        trial = await start(plan, dir, callbacks);
        return this.#attend(trial, host, signal);
      },
      release: () => {
        if (!trial) this.#taken.delete(id);
      },
      dumped: async () => {
        if (!trial) return;
        const stop = (): void => void trial?.lost({ why: 'interrupted' }).catch(() => {});
        if (signalOf.current?.aborted) stop();
        signalOf.current?.addEventListener('abort', stop, { once: true });
        await trial.dumped;
        signalOf.current?.removeEventListener('abort', stop);
      },
    });
    return taken.assigned;
  }

  /** Waits for a trial's end; if the run is stopped, no longer than it takes its worker to end it. */
  async #attend(trial: PendingTrial, { name }: Place['host'], signal: AbortSignal) {
    let timer: NodeJS.Timeout | undefined;
    const stop = (): void => {
      trial.isToStop = true;
      timer = setTimeout(() => void trial.lost({ why: 'interrupted' }).catch(() => {}), STOP_SECONDS * 1000);
    };
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
    try {
      return await trial.outcome;
    } catch (error) {
      throw error instanceof InfraError
        ? error
        : new InfraError('log-lost', `a trial on ${name}: ${firstLine(error)}`, error);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', stop);
      // A dump is not waited for then.
      if (signal.aborted) await trial.lost({ why: 'interrupted' });
    }
  }

  /** A worker cannot run this one: another may. */
  #refuse(id: string, why: string): void {
    const taken = this.#taken.get(id);
    if (!taken?.trial?.isRunning) return;
    this.#taken.delete(id);
    this.#progress.line(`${taken.host.name} cannot run a trial: ${why}`);
    const refusals = [...(this.#refused.get(taken.cellKey) ?? []), taken.host.name];
    this.#refused.set(taken.cellKey, refusals);
    const isEnough = new Set(refusals).size >= MOST_REFUSALS.hosts || refusals.length >= MOST_REFUSALS.inAll;
    const worker = `${taken.host.name} could not run it: ${why}`;
    void taken.trial.lost({ why: 'cut-off', worker }, isEnough).catch(() => {});
  }

  /** A worker says that it cannot go on: as if it were lost, if that is not because somebody stopped it. */
  async #abandon(id: string, worker: string, isFault: boolean): Promise<void> {
    const taken = this.#taken.get(id);
    if (!taken?.trial?.isRunning) return;
    this.#taken.delete(id);
    const count = (this.#lost.get(taken.cellKey) ?? 0) + (isFault ? 1 : 0);
    this.#lost.set(taken.cellKey, count);
    await taken.trial.lost({ why: 'cut-off', worker }, count >= MOST_LOST);
  }

  #tellOnce(key: string, line: string): void {
    if (this.#told.has(key)) return;
    this.#told.add(key);
    this.#progress.line(line);
  }
}

const silenceOf = (trial: PendingTrial): number => (performance.now() - trial.lastBeat) / 1000;
