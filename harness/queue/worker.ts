import { randomBytes } from 'node:crypto';
import { mkdir, statfs } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Job, Worker as Puller } from 'bullmq';
import type { Redis } from 'ioredis';
import * as z from 'zod';
import { firstLine, InfraError, InterruptedError, interruptible, LoopanicError } from '../base/errors.js';
import { scratchDir, sweepScratch } from '../base/files.js';
import type { Progress } from '../base/progress.js';
import { Crowd } from '../run/runner.js';
import { runTrial } from '../trial/run-trial.js';
import { CoordinatorClient } from './client.js';
import { Courier } from './courier.js';
import { gatherParts, sweepParts } from './parts.js';
import { planSchema } from './plan-schema.js';
import {
  type Assignment,
  BEAT_SECONDS,
  coordinatorSchema,
  ownVersion,
  partsSchema,
  type Ticket,
  ticketSchema,
  type Version,
  versionText,
  type WorkerRecord,
} from './protocol.js';
import {
  announce,
  announced,
  bounded,
  connectRedis,
  isAnnounced,
  LAST_ANSWER_SECONDS,
  queueName,
  shownUrl,
  withdraw,
} from './redis.js';

export interface WorkerOptions {
  url: string;
  /** Trials at a time. */
  jobs: number;
  labels: string[];
  accel: WorkerRecord['accel'];
  qemu: string;
}

/** Parts that take longer than this do not come. */
const GATHER_SECONDS = 30 * 60;
/** A trial that fails sooner says more of its host than of its guest. */
const SOON_SECONDS = 5;
const MOST_REST_SECONDS = 60;
/** A connection that went dead is made anew long before this worker counts as lost. */
const BEAT_ANSWER_SECONDS = 10;
const DAY_MS = 24 * 3600 * 1000;
const PULL_MS = 200;
/** Free bytes of the cache's file system, and of memory beside a guest's, below which nothing is taken. */
const LEAST_DISK_BYTES = 512 * 2 ** 20;
const MEMORY_SHARE = 1.25;

/** Works for whatever runs use this queue, until `signal`. Throws InfraError if the queue cannot be reached at first. */
export async function work(options: WorkerOptions, signal: AbortSignal, progress: Progress): Promise<void> {
  await sweepScratch();
  await sweepParts();
  const redis = await connectRedis(options.url);
  const version = await ownVersion();
  const worker = new Worker(options, version, redis, signal, progress);
  try {
    await worker.run();
  } finally {
    await worker.end();
    redis.disconnect();
  }
}

class Worker {
  readonly #id = randomBytes(8).toString('hex');
  readonly #options: WorkerOptions;
  readonly #version: Version;
  readonly #redis: Redis;
  readonly #signal: AbortSignal;
  readonly #progress: Progress;
  readonly #host: WorkerRecord['host'];
  readonly #pullers: Puller<Ticket>[];
  readonly #crowd = new Crowd();
  readonly #running = new Set<Promise<void>>();
  readonly #told = new Set<string>();
  #lastAnnounced = Number.NEGATIVE_INFINITY;
  /** Trials in a row that failed here at once. */
  #failures = 0;
  #rested = 0;
  #restsUntil = 0;
  #swept = Date.now();
  /** Memory of the guests that were let in. */
  #reservedMiB = 0;

  constructor(
    options: WorkerOptions,
    version: Version,
    redis: Redis,
    signal: AbortSignal,
    progress: Progress,
  ) {
    this.#options = options;
    this.#version = version;
    this.#redis = redis;
    this.#signal = signal;
    this.#progress = progress;
    this.#host = { name: hostname(), qemu: options.qemu };
    // Those with a label first: only some workers serve them.
    this.#pullers = [...options.labels, null].map((label) => {
      const name = queueName(version, options.accel, label);
      const puller = new Puller<Ticket>(name, null, { connection: redis, autorun: false });
      puller.on('error', () => {});
      return puller;
    });
  }

  async run(): Promise<void> {
    const { url, jobs, accel, labels } = this.#options;
    const also = labels.length > 0 ? `, labels ${labels.join(', ')}` : '';
    await this.#announce();
    this.#progress.line(
      `worker on ${this.#host.name}: ${versionText(this.#version)}, ${accel}, ${jobs} at a time${also}; waits at ${shownUrl(url)}`,
    );
    while (!this.#signal.aborted) {
      try {
        await interruptible(this.#announce(), this.#signal);
        if (this.#told.delete('redis')) this.#progress.line(`${shownUrl(url)} answers again`);
        if (await this.#hasRoom()) await interruptible(this.#pull(), this.#signal);
      } catch (error) {
        if (this.#signal.aborted) break;
        this.#tellOnce('redis', `${shownUrl(url)}: ${firstLine(error)}: what runs goes on`);
      }
      await sleep(PULL_MS, undefined, { signal: this.#signal }).catch(() => {});
    }
    await Promise.all(this.#running);
  }

  async end(): Promise<void> {
    if (this.#redis.status !== 'ready') return;
    const all = [
      withdraw(this.#redis, 'worker', this.#id),
      ...this.#pullers.map((puller) => puller.close(true)),
    ];
    await bounded(Promise.allSettled(all), LAST_ANSWER_SECONDS).catch(() => {});
  }

  async #announce(): Promise<void> {
    if (performance.now() - this.#lastAnnounced < BEAT_SECONDS * 1000) return;
    const { jobs, labels, accel } = this.#options;
    await announce(this.#redis, 'worker', this.#id, {
      version: this.#version,
      host: this.#host,
      accel,
      jobs,
      labels,
    } satisfies WorkerRecord);
    this.#lastAnnounced = performance.now();
    for (const [id, { version, run, hostname: where }] of await announced(
      this.#redis,
      'run',
      coordinatorSchema,
    ))
      if (versionText(version) !== versionText(this.#version))
        this.#tellOnce(
          `other ${id}`,
          `run ${run} on ${where} is of ${versionText(version)}, this worker is ${versionText(this.#version)}: it is not served`,
        );
  }

  /** No trial is taken that this host could not hold. */
  async #hasRoom(): Promise<boolean> {
    if (this.#running.size >= this.#options.jobs || performance.now() < this.#restsUntil) return false;
    if (this.#failures > 0) {
      // What fails here at once would fail the next one, too, before another host comes to it.
      const seconds = Math.min(MOST_REST_SECONDS, 2 ** this.#failures);
      this.#restsUntil = performance.now() + seconds * 1000;
      if (this.#rested !== this.#failures) {
        this.#rested = this.#failures;
        return false;
      }
    }
    if (Date.now() - this.#swept > DAY_MS) {
      this.#swept = Date.now();
      await sweepParts();
    }
    await using probe = await scratchDir('room').catch((error: unknown) => {
      this.#tellOnce('disk', `${firstLine(error)}: takes no trials until then`);
      return null;
    });
    if (probe === null) return false;
    const { bavail, bsize } = await statfs(probe.path);
    const free = bavail * bsize;
    if (free < LEAST_DISK_BYTES) {
      this.#tellOnce(
        'disk',
        `only ${Math.floor(free / 2 ** 20)} MiB are free for the cache: takes no trials until there are ${LEAST_DISK_BYTES / 2 ** 20}`,
      );
      return false;
    }
    if (this.#told.delete('disk')) this.#progress.line('the disk has room again');
    return true;
  }

  async #pull(): Promise<void> {
    for (const puller of this.#pullers) {
      const job = await bounded(puller.getNextJob(this.#id, { block: false }));
      if (!job) continue;
      const ticket = ticketSchema.safeParse(job.data);
      if (ticket.success) {
        const running: Promise<void> = this.#trial(job, ticket.data)
          .catch((error: unknown) =>
            this.#progress.line(`a trial of run ${ticket.data.run}: ${firstLine(error)}`),
          )
          .finally(() => this.#running.delete(running));
        this.#running.add(running);
      } else await this.#done(job);
      return;
    }
  }

  /** The queue has done its part: from here on the trial's coordinator knows who has it. */
  async #done(job: Job<Ticket>): Promise<void> {
    await bounded(job.moveToCompleted(null as never, this.#id, false)).catch(() => {});
  }

  async #trial(job: Job<Ticket>, ticket: Ticket): Promise<void> {
    const over = new AbortController();
    const stop = (): void => over.abort();
    this.#signal.addEventListener('abort', stop, { once: true });
    if (this.#signal.aborted) return;
    try {
      // Tickets outlive runs that were killed.
      if (!(await isAnnounced(this.#redis, 'run', ticket.run))) return void (await this.#done(job));
      const coordinator = new CoordinatorClient(ticket, new AbortController().signal);
      const taken = await coordinator
        .tell('take', { version: this.#version, host: this.#host, accel: this.#options.accel })
        .catch((error: unknown) => {
          this.#tellOnce(
            `gone ${ticket.run}`,
            `run ${ticket.run}: ${firstLine(error)}: its coordinator is gone, or listens where this host cannot reach it`,
          );
          return null;
        });
      // Not waited for: who has the trial is known, and its coordinator waits for a sign.
      void this.#done(job);
      if (taken === null || taken.status === 409 || taken.status === 410) return;
      if (taken.status !== 200)
        throw new InfraError('trial-over', String(taken.document.error ?? `answered ${taken.status}`));
      const assignment = await this.#read(taken.document, coordinator);
      const { plan } = assignment;
      const { kernel, module, scenario, trial } = plan;
      await this.#progress.step(
        `${kernel} ${module} ${scenario.name} trial ${trial} of ${ticket.run}`,
        (update) => this.#work(assignment, coordinator, over, update),
        (outcome) => outcome,
      );
    } finally {
      this.#signal.removeEventListener('abort', stop);
    }
  }

  /** What a coordinator sent, looked at: its words go into file names and programs of this host. Throws InfraError. */
  async #read(document: Record<string, unknown>, coordinator: CoordinatorClient): Promise<Assignment> {
    try {
      return { plan: planSchema.parse(document.plan), parts: partsSchema.parse(document.parts) };
    } catch (error) {
      const [issue] = error instanceof z.ZodError ? error.issues : [];
      const why = `its plan is none: ${issue ? `${issue.path.map(String).join('.')}: ${issue.message}` : firstLine(error)}`;
      await coordinator.tell('refuse', { why: why.slice(0, 1000) }).catch(() => {});
      throw new InfraError('trial-over', why, error);
    }
  }

  /** Runs a trial that is this worker's, and returns its outcome. */
  async #work(
    assignment: Assignment,
    coordinator: CoordinatorClient,
    over: AbortController,
    update: (text: string) => void,
  ): Promise<string> {
    const { plan } = assignment;
    let status = 'its parts are gathered';
    let isStopped = false;
    let isBegun = false;
    const onStatus = (text: string): void => {
      status = text;
      update(text);
    };
    onStatus(status);
    const beating = new AbortController();
    coordinator.attend(beating.signal);
    const beats = (async () => {
      while (!beating.signal.aborted) {
        const answer = await coordinator
          .tell('beat', { status: status.slice(0, 500) }, BEAT_ANSWER_SECONDS)
          .catch(() => null);
        if (answer?.status === 200 && answer.document.stop === true) isStopped = true;
        // Its coordinator has given it up, or is gone.
        const isRefused = answer !== null && answer.status >= 400 && answer.status < 500;
        if (isStopped || isRefused || coordinator.isLost) over.abort();
        await sleep(BEAT_SECONDS * 1000, undefined, { signal: beating.signal }).catch(() => {});
      }
    })();
    try {
      await using scratch = await scratchDir('trial');
      const until = AbortSignal.any([over.signal, AbortSignal.timeout(GATHER_SECONDS * 1000)]);
      const gathering = gatherParts(assignment, coordinator.until(until), this.#progress);
      await using parts = await interruptible(gathering, until).catch((error: unknown) => {
        // What comes all the same is not used.
        void gathering.then((late) => late[Symbol.asyncDispose]()).catch(() => {});
        if (over.signal.aborted || !until.aborted) throw error;
        throw new InfraError('part-lost', `its parts were not there after ${GATHER_SECONDS / 60} min`);
      });
      if (parts.fetched.length > 0)
        this.#progress.line(`from its coordinator came ${parts.fetched.join(', ')}`);
      using _room = await this.#roomFor(assignment, over.signal, onStatus);
      const dir = join(scratch.path, 'trial');
      await mkdir(dir, { mode: 0o700 });
      const courier = new Courier(dir, coordinator);
      courier.follow();
      let crash: Promise<unknown> = Promise.resolve();
      isBegun = true;
      const outcome = await this.#crowd.with(plan, () =>
        runTrial(plan, parts.files, dir, over.signal, {
          onStatus,
          crowding: this.#crowd.factor,
          onCrash: (end, timings) => {
            // It is judged by what its logs have now, as on one machine.
            crash = courier.hold(() => coordinator.insist('crashed', { end, timings })).catch(() => {});
          },
        }),
      );
      onStatus('its logs are sent');
      await crash;
      const { ended, timings } = outcome;
      const wasStopped = ended.why === 'interrupted' && !isStopped;
      const end = wasStopped
        ? { why: 'cut-off', worker: `its worker on ${this.#host.name} was stopped` }
        : ended;
      await courier.deliver(end, timings);
      const isOwnFault =
        outcome.outcome === 'infra-error' && !outcome.interrupted && (timings.outcome ?? 0) < SOON_SECONDS;
      this.#failures = isOwnFault ? this.#failures + 1 : 0;
      if (!isOwnFault) this.#rested = 0;
      return outcome.outcome;
    } catch (error) {
      const isStop = this.#signal.aborted || isStopped;
      // A trial that its coordinator has given up, or that was stopped, says nothing of this host.
      if (!isStop && !over.signal.aborted) this.#failures++;
      const isOfHost = error instanceof LoopanicError || isSystem(error);
      if (!isBegun && !isStop && isOfHost && !over.signal.aborted)
        // It was not begun: its coordinator is to have it done elsewhere.
        await coordinator.tell('refuse', { why: firstLine(error).slice(0, 1000) }).catch(() => {});
      else {
        // What its guest had said is there; why it was ended is all that is missing.
        const why = this.#signal.aborted ? 'was stopped' : `failed (${firstLine(error).slice(0, 300)})`;
        const worker = `its worker on ${this.#host.name} ${why}`;
        await coordinator.tell('abandoned', { worker, isFault: !isStop }).catch(() => {});
      }
      throw error;
    } finally {
      beating.abort();
      await beats;
    }
  }

  /**
   * Lets a trial in when its guests fit into this host's memory, beside those that were let in before: guests take theirs as they go. Disposing
   * gives the room back. Throws InfraError if they never will.
   */
  async #roomFor(
    { plan }: Assignment,
    signal: AbortSignal,
    onStatus: (text: string) => void,
  ): Promise<Disposable> {
    const guests = plan.scenario.where === 'peer' ? 2 : 1;
    const mib = plan.scenario.vm.memoryMiB * guests * MEMORY_SHARE;
    for (;;) {
      // What those that were let in have taken already is counted twice: rather too careful than the kernel's own choice.
      const free = process.availableMemory() / 2 ** 20 - this.#reservedMiB / 2;
      if (free >= mib) break;
      if (signal.aborted) throw new InterruptedError();
      if (this.#reservedMiB === 0)
        throw new InfraError(
          'no-room',
          `its guests need ${Math.ceil(mib)} MiB of memory, and ${Math.floor(free)} are free on ${this.#host.name}`,
        );
      onStatus(`waits for ${Math.ceil(mib)} MiB of free memory`);
      await sleep(1000);
    }
    this.#reservedMiB += mib;
    return {
      [Symbol.dispose]: () => {
        this.#reservedMiB -= mib;
      },
    };
  }

  #tellOnce(key: string, line: string): void {
    if (this.#told.has(key)) return;
    this.#told.add(key);
    this.#progress.line(line);
  }
}

/** The system's own refusals: a disk that is full. */
function isSystem(error: unknown): boolean {
  return error instanceof Error && 'syscall' in error;
}
