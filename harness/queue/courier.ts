import { open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { InfraError } from '../base/errors.js';
import { sha256OfFile } from '../base/files.js';
import type { CoordinatorClient } from './client.js';
import { CHUNK_BYTES, DUMPS, LOGS, type Part } from './protocol.js';

const LOOK_MS = 1000;

/** Brings a trial's files from its folder to the coordinator: logs as they grow, dumps at the end. */
export class Courier {
  readonly #dir: string;
  readonly #coordinator: CoordinatorClient;
  /** Bytes of each file that the coordinator has. */
  readonly #sent = new Map<string, number>();
  readonly #over = new AbortController();
  #isHeld = false;
  #following: Promise<void> = Promise.resolve();
  /** One at a time, or two would send the same. */
  #sending: Promise<void> = Promise.resolve();

  constructor(dir: string, coordinator: CoordinatorClient) {
    this.#dir = dir;
    this.#coordinator = coordinator;
  }

  /** Sends what logs grow by, until `stop`. A failure shows there at the latest: what is missing is sent again. */
  follow(): void {
    this.#following = (async () => {
      while (!this.#over.signal.aborted) {
        if (!this.#isHeld) await this.flush();
        await sleep(LOOK_MS, undefined, { signal: this.#over.signal }).catch(() => {});
      }
    })().catch(() => {});
  }

  /** Sends what the logs have by now, and then nothing more until `work` is done. */
  async hold(work: () => Promise<unknown>): Promise<void> {
    this.#isHeld = true;
    try {
      await this.flush();
      await work();
    } finally {
      this.#isHeld = false;
    }
  }

  /** Sends what the logs have by now. */
  flush(names: readonly string[] = LOGS): Promise<void> {
    const done = this.#sending.then(async () => {
      for (const name of names) await this.#send(name);
    });
    this.#sending = done.catch(() => {});
    return done;
  }

  async stop(): Promise<void> {
    this.#over.abort();
    await this.#following;
  }

  /** Sends what is left of the logs, and then says that it is over, until the coordinator has all of it. Throws InfraError if it will not. */
  async deliver(end: unknown, timings: Record<string, number>): Promise<void> {
    await this.stop();
    const files = await this.#describe([...LOGS, ...DUMPS]);
    await this.#untilSame(LOGS, 'ended', { end, timings, files });
    const dumps = DUMPS.filter((name) => name in files);
    if (dumps.length > 0) await this.#untilSame(dumps, 'dumped', {});
  }

  async #untilSame(names: readonly string[], what: string, document: unknown): Promise<void> {
    for (;;) {
      await this.flush(names);
      const { status, document: said } = await this.#coordinator.insist(what, document);
      // 410: it has it, and only its answer was lost.
      if (status === 200 || (status === 410 && what === 'dumped')) return;
      if (status !== 409) throw refused(status, said);
      this.#sent.set(String(said.name), Number(said.bytes));
    }
  }

  async #describe(names: readonly string[]): Promise<Record<string, Part>> {
    const files: Record<string, Part> = {};
    for (const name of names) {
      const path = join(this.#dir, name);
      const info = await stat(path).catch(() => null);
      if (info && info.size > 0) files[name] = { sha256: await sha256OfFile(path), bytes: info.size };
    }
    return files;
  }

  async #send(name: string): Promise<void> {
    const path = join(this.#dir, name);
    const sizeNow = async (): Promise<number> => {
      const info = await stat(path).catch(() => null);
      return info?.size ?? 0;
    };
    for (;;) {
      const from = this.#sent.get(name) ?? 0;
      const bytes = Math.min(CHUNK_BYTES, (await sizeNow()) - from);
      if (bytes <= 0) return;
      const content = await readPart(path, from, bytes);
      const { status, document } = await this.#coordinator.append(name, from, content);
      // 409: an answer was lost on its way, or it has none of it: from where it is, then.
      if (status !== 200 && status !== 409) throw refused(status, document);
      this.#sent.set(name, Number(document.bytes));
    }
  }
}

async function readPart(path: string, from: number, bytes: number): Promise<Buffer> {
  const file = await open(path, 'r');
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(bytes), 0, bytes, from);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

function refused(status: number, said: Record<string, unknown>): InfraError {
  return new InfraError(
    'trial-over',
    `its coordinator takes no more of it (${status}: ${String(said.error ?? '')})`,
  );
}
