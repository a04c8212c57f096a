import { randomBytes } from 'node:crypto';
import { mkdir, statfs } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Job, Worker as Puller } from 'bullmq';
import type { Redis } from 'ioredis';
import { firstLine, InfraError, LoopanicError } from '../base/errors.js';
import { scratchDir, sweepScratch } from '../base/files.js';
import type { Progress } from '../base/progress.js';
import { Crowd } from '../run/runner.js';
import { runTrial } from '../trial/run-trial.js';
import { CoordinatorClient } from './client.js';
import { Courier } from './courier.js';
import { gatherParts, sweepParts } from './parts.js';
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
import { announce, announced, connectRedis, queueName, shownUrl, withdraw } from './redis.js';

export interface WorkerOptions {
  url: string;
  /** Trials at a time. */
  jobs: number;
  labels: string[];
  accel: WorkerRecord['accel'];
  qemu: string;
}

const PULL_MS = 200;
/** A queue that does not answer within so many seconds is asked again later. */
const PULL_SECONDS = 10;
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
    this.#pullers = [null, ...options.labels].map((label) => {
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
        await bounded(this.#announce());
        if (this.#told.delete('redis')) this.#progress.line(`${shownUrl(url)} answers again`);
        if (await this.#hasRoom()) await this.#pull();
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
    await withdraw(this.#redis, 'worker', this.#id).catch(() => {});
    for (const puller of this.#pullers) await puller.close(true).catch(() => {});
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
    if (this.#running.size >= this.#options.jobs) return false;
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
    try {
      const coordinator = new CoordinatorClient(ticket, new AbortController().signal);
      const taken = await coordinator
        .tell('take', { version: this.#version, host: this.#host, accel: this.#options.accel })
        .catch((error: unknown) => {
          this.#progress.line(`run ${ticket.run}: ${firstLine(error)}: its coordinator is gone`);
          return null;
        });
      await this.#done(job);
      if (taken === null || taken.status === 409 || taken.status === 410) return;
      if (taken.status !== 200)
        throw new InfraError('trial-over', String(taken.document.error ?? `answered ${taken.status}`));
      const { plan } = taken.document as unknown as Assignment;
      const assignment = { plan, parts: partsSchema.parse(taken.document.parts) };
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
    const onStatus = (text: string): void => {
      status = text;
      update(text);
    };
    onStatus(status);
    const beating = new AbortController();
    coordinator.attend(beating.signal);
    const beats = (async () => {
      while (!beating.signal.aborted) {
        const answer = await coordinator.tell('beat', { status: status.slice(0, 500) }).catch(() => null);
        if (answer?.status === 200 && answer.document.stop === true) isStopped = true;
        // Its coordinator has given it up, or is gone.
        if (isStopped || answer?.status === 410 || coordinator.isLost) over.abort();
        await sleep(BEAT_SECONDS * 1000, undefined, { signal: beating.signal }).catch(() => {});
      }
    })();
    try {
      await using scratch = await scratchDir('trial');
      await using parts = await gatherParts(assignment, coordinator, this.#progress);
      if (parts.fetched.length > 0)
        this.#progress.line(`from its coordinator came ${parts.fetched.join(', ')}`);
      await this.#roomFor(assignment, over.signal, onStatus);
      const dir = join(scratch.path, 'trial');
      await mkdir(dir, { mode: 0o700 });
      const courier = new Courier(dir, coordinator);
      courier.follow();
      let crash: Promise<unknown> = Promise.resolve();
      const outcome = await this.#crowd.with(plan, () =>
        runTrial(plan, parts.files, dir, over.signal, {
          onStatus,
          crowding: this.#crowd.factor,
          onCrash: (end, timings) => {
            crash = courier
              .flush()
              .then(() => coordinator.tell('crashed', { end, timings }))
              .catch(() => {});
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
      return outcome.outcome;
    } catch (error) {
      if (!(error instanceof LoopanicError) && !isSystem(error)) throw error;
      // It was not begun: its coordinator is to have it done elsewhere.
      await coordinator.tell('refuse', { why: firstLine(error).slice(0, 1000) }).catch(() => {});
      throw error;
    } finally {
      beating.abort();
      await beats;
    }
  }

  /** Waits until a trial's guests fit into this host's free memory. */
  async #roomFor({ plan }: Assignment, signal: AbortSignal, onStatus: (text: string) => void): Promise<void> {
    const guests = plan.scenario.where === 'peer' ? 2 : 1;
    const mib = plan.scenario.vm.memoryMiB * guests * MEMORY_SHARE;
    while (!signal.aborted) {
      const free = process.availableMemory() / 2 ** 20;
      if (free >= mib) return;
      if (this.#running.size <= 1)
        throw new InfraError(
          'no-room',
          `its guests need ${Math.ceil(mib)} MiB of memory, and ${Math.floor(free)} are free on ${this.#host.name}`,
        );
      onStatus(`waits for ${Math.ceil(mib)} MiB of free memory`);
      await sleep(1000);
    }
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

/** A command that a Redis which is away would hold for as long as it is. */
async function bounded<T>(work: Promise<T>): Promise<T> {
  const timer = new AbortController();
  work.catch(() => {});
  try {
    return await Promise.race([
      work,
      sleep(PULL_SECONDS * 1000, undefined, { signal: timer.signal }).then(() => {
        throw new Error('it does not answer');
      }),
    ]);
  } finally {
    timer.abort();
  }
}
