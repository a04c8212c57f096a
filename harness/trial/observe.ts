import { CrashReader } from '../outcome/crash-report.js';
import type { TrialEnd } from '../outcome/decide.js';
import { FactReader } from '../outcome/guest-facts.js';
import { GuestMarkers, LineSplitter } from '../outcome/guest-markers.js';
import type { Limits } from '../scenario/scenario-schema.js';
import { followFile } from '../vm/follow-file.js';
import { MOST_BYTES } from './conclude.js';
import { Watchdog } from './watchdog.js';

/** What is watched. */
export interface Watched {
  token: string;
  limits: Limits;
  /** The trial's folder. */
  dir: string;
  /** Called with the guest's end, as often as there is a reason for one. */
  onEnd: (end: TrialEnd) => void;
  /** The guest came further. */
  onMarker: () => void;
  /** A crash is on the console; its report may not be complete yet. */
  onCrash: () => void;
  onConsole?: ((chunk: Buffer) => void) | undefined;
}

/** A guest whose two serial ports are read as they grow, and that is ended when it hangs. */
export class ObservedGuest {
  readonly markers: GuestMarkers;
  readonly facts: FactReader;
  readonly crashes = new CrashReader();
  readonly watchdog: Watchdog;
  readonly #watched: Watched;

  constructor(watched: Watched) {
    this.#watched = watched;
    this.markers = new GuestMarkers(watched.token);
    this.facts = new FactReader(watched.token);
    this.watchdog = new Watchdog(watched.limits, watched.dir, watched.onEnd);
  }

  /** Reads both files until it is disposed of, and then what is left in them. */
  async follow(logs: { console: string; guest: string }): Promise<AsyncDisposable> {
    const { markers, crashes, watchdog } = this;
    const { onMarker, onCrash, onConsole } = this.#watched;
    const console = new LineSplitter((line) => {
      crashes.push(line);
      if (markers.push(line)) {
        watchdog.booted();
        watchdog.progress();
        onMarker();
      } else if (markers.phase === 'boot') watchdog.bootLine(line.text);
      if (crashes.crash) {
        watchdog.crashed();
        onCrash();
      }
    });
    const guestLog = new LineSplitter((line) => this.facts.push(line.text, line.number));
    const first = await followFile(logs.console, MOST_BYTES + 1, (chunk) => {
      watchdog.sign('console', chunk.length);
      console.push(chunk);
      onConsole?.(chunk);
    });
    try {
      const second = await followFile(logs.guest, MOST_BYTES + 1, (chunk) => {
        watchdog.sign('guest', chunk.length);
        guestLog.push(chunk);
      });
      return {
        async [Symbol.asyncDispose]() {
          await second[Symbol.asyncDispose]();
          await first[Symbol.asyncDispose]();
        },
      };
    } catch (error) {
      await first[Symbol.asyncDispose]();
      throw error;
    }
  }
}
