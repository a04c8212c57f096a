import { stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import type { TrialEnd } from '../outcome/decide.js';
import { MOST_BYTES, MOST_LINES, TRIAL_FILES } from './conclude.js';
import { floodedPort } from './take-dump.js';

/** A report that does not end (the guest died while printing it) is taken as it is after so many seconds without a byte. */
export const CRASH_QUIET_SECONDS = 5;
/**
 * Seconds from QEMU's start to the guest's first script on the machine that the limits were chosen on (TCG, two cores, idle): what is
 * slower gets more time.
 */
const USUAL_BOOT_SECONDS = 6;
/** No host is so slow that a guest could not be told from a dead one. */
const MOST_SLOWNESS = 40;
/** A kernel that prints and prints has this many times `stallSeconds` to come to its first script. */
const BOOT_FACTOR = 10;
/** Fewer free bytes than this on the file system of the logs: QEMU drops what it cannot write, without a word. */
const LEAST_FREE_BYTES = 8 * 2 ** 20;
const INTERVAL_MS = 250;
/** A timer that comes so much later than asked for. */
const LATE_MS = 1000;

/** QEMU says a line of its own for some of what a guest does: of one that makes it say so for ever it is ended, too. */
async function floodedLog(dir: string): Promise<number | null> {
  for (const name of [TRIAL_FILES.qemu, TRIAL_FILES.peerQemu]) {
    const size = await stat(join(dir, name)).then(
      (info) => info.size,
      () => 0,
    );
    if (size > MOST_BYTES) return MOST_BYTES;
  }
  return null;
}

/** Where QEMU keeps what guests write to their disks (its block.c, create_tmp_file()): /tmp may be memory, and is not taken for it. */
const { TMPDIR = '' } = process.env;
const SNAPSHOTS = ['', '/tmp', '/tmp/'].includes(TMPDIR) ? '/var/tmp' : TMPDIR;

function freeBytes(dir: string, ifGone: number): Promise<number> {
  return statfs(dir).then(
    ({ bavail, bsize }) => bavail * bsize,
    () => ifGone,
  );
}

/** Of a scenario: seconds of silence and without headway, and MiB of the guest's memory. */
interface Limits {
  silenceSeconds: number;
  stallSeconds: number;
  memoryMiB: number;
}

/** Monotonic milliseconds. */
export type Clock = () => number;

/**
 * Ends a trial on evidence of a hang, never on its total time: `silenceSeconds` without a byte from the guest (it sends a heartbeat every
 * two seconds), or `stallSeconds` of heartbeats without a new phase or cycle. On a slow host both are longer, by the time that this guest
 * took to boot, and by how many CPUs share the host's. What a guest says has an end too: a console that repeats itself is no headway, and one that never stops is ended.
 */
export class Watchdog {
  /** A person is in charge of the guest's pace, or it waits for another: only silence counts. */
  attended = false;
  readonly #limits: Limits;
  readonly #end: (end: TrialEnd) => void;
  /** Folder of the logs. */
  readonly #dir: string;
  readonly #seen = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  readonly #now: Clock;
  #started: number;
  #lastSign: number;
  #lastConsole: number;
  #lastProgress: number;
  #crashedAt: number | undefined;
  #bytes = 0;
  #lines = 0;
  #lastCheck = 0;
  #booted = false;
  #slowness = 1;
  readonly #crowding: () => number;
  /** The largest since it came further: what was slow then is not made up for when others end. */
  #crowded = 0;

  constructor(
    limits: Limits,
    dir: string,
    end: (end: TrialEnd) => void,
    clock: Clock = () => performance.now(),
    crowding: () => number = () => 1,
  ) {
    this.#crowding = crowding;
    this.#now = clock;
    this.#started = this.#lastSign = this.#lastConsole = this.#lastProgress = clock();
    this.#limits = limits;
    this.#dir = dir;
    this.#end = end;
  }

  /** How many times slower than usual this guest is: by its boot, and by those beside it; 1 at least. */
  get slowness(): number {
    this.#crowded = Math.max(this.#crowded, this.#crowding());
    return Math.max(this.#slowness, Math.min(MOST_SLOWNESS, this.#crowded));
  }

  start(): void {
    this.#started = this.#now();
    this.#lastCheck = this.#started;
    this.#lastSign = this.#lastConsole = this.#lastProgress = this.#started;
    this.#timer = setInterval(() => void this.#check(), INTERVAL_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** The guest sent something. */
  sign(from: 'console' | 'guest', chunk: Buffer): void {
    this.#lastSign = this.#now();
    if (from === 'console') this.#lastConsole = this.#lastSign;
    this.#bytes += chunk.length;
    for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, at + 1)) this.#lines++;
    if (this.#bytes > MOST_BYTES || this.#lines > MOST_LINES)
      this.#end({ why: 'flooded', mib: MOST_BYTES / 2 ** 20 });
  }

  /** Seconds since the last byte on the console. */
  consoleQuietSeconds(): number {
    return (this.#now() - this.#lastConsole) / 1000;
  }

  /** The guest came further. */
  progress(): void {
    this.#crowded = 0;
    this.#lastProgress = this.#now();
  }

  /** A line of a kernel that boots: headway, unless it was there before. */
  bootLine(text: string): void {
    const kind = text.replace(/\d+/g, '0').slice(0, 120);
    if (this.#seen.has(kind)) return;
    this.#seen.add(kind);
    this.progress();
  }

  /** The guest's first script runs: how long that took is how slow it is. */
  booted(): void {
    if (this.#booted) return;
    this.#booted = true;
    const seconds = (this.#now() - this.#started) / 1000;
    this.#slowness = Math.min(MOST_SLOWNESS, Math.max(1, seconds / USUAL_BOOT_SECONDS));
  }

  /** A crash report has begun: once the console is quiet for a while, no more of it will come. */
  crashed(): void {
    this.#crashedAt ??= this.#now();
  }

  /** This process was held up: what a guest said meanwhile has yet to be read. */
  #forgiveLateness(): void {
    const late = this.#now() - this.#lastCheck - INTERVAL_MS;
    this.#lastCheck = this.#now();
    if (late < LATE_MS) return;
    this.#lastSign += late;
    this.#lastConsole += late;
    this.#lastProgress += late;
  }

  async #check(): Promise<void> {
    this.#forgiveLateness();
    const seconds = (since: number): number => (this.#now() - since) / 1000;
    const slow = this.slowness;
    const [silence, stall] = [this.#limits.silenceSeconds * slow, this.#limits.stallSeconds * slow];
    if (this.#crashedAt !== undefined) {
      // One that goes on printing behind a report without an end is not waited for.
      if (seconds(this.#lastConsole) >= CRASH_QUIET_SECONDS * slow || seconds(this.#crashedAt) >= stall)
        this.#end({ why: 'crashed' });
    } else if (seconds(this.#lastSign) >= silence) this.#end({ why: 'silent', seconds: Math.round(silence) });
    else if (!this.attended && seconds(this.#lastProgress) >= stall)
      this.#end({ why: 'stalled', seconds: Math.round(stall) });
    else if (!this.#booted && seconds(this.#started) >= BOOT_FACTOR * stall)
      this.#end({ why: 'stalled', seconds: Math.round(BOOT_FACTOR * stall) });
    // A folder that is gone takes no logs; without one for snapshots QEMU does not start.
    const free = Math.min(
      await freeBytes(this.#dir, 0),
      await freeBytes(SNAPSHOTS, Number.POSITIVE_INFINITY),
    );
    if (this.#timer !== undefined && free < LEAST_FREE_BYTES)
      this.#end({ why: 'disk-full', freeMiB: Math.floor(free / 2 ** 20) });
    const flooded = (await floodedPort(this.#dir, this.#limits)) ?? (await floodedLog(this.#dir));
    if (this.#timer !== undefined && flooded !== null)
      this.#end({ why: 'flooded', mib: Math.floor(flooded / 2 ** 20) });
  }
}
