import type { Duplex } from 'node:stream';
import { InfraError } from '../base/errors.js';

interface Pending {
  resolve: (value: unknown) => void;
  reject: (error: Error) => void;
}

const GREETING_SECONDS = 30;
const CALL_SECONDS = 30;

async function withTimeout<T>(work: Promise<T>, seconds: number, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    const error = new InfraError('qmp-timeout', `QEMU did not ${what} within ${seconds} s`);
    timer = setTimeout(() => reject(error), seconds * 1000);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Client of the QEMU Machine Protocol (QEMU's docs/interop/qmp-spec) over one stream. */
export class Qmp {
  readonly #stream: Duplex;
  readonly #pending = new Map<number, Pending>();
  readonly #greeting: Promise<void>;
  #nextId = 1;
  #buffer = '';
  #closed = false;
  #greeted: () => void = () => {};

  constructor(stream: Duplex) {
    this.#stream = stream;
    this.#greeting = new Promise((resolve, reject) => {
      this.#greeted = resolve;
      const fail = (): void => {
        this.#closed = true;
        const error = new InfraError('qmp-closed', 'QEMU closed its control channel');
        reject(error);
        for (const { reject: rejectCall } of this.#pending.values()) rejectCall(error);
        this.#pending.clear();
      };
      stream.on('close', fail);
      stream.on('error', fail);
    });
    this.#greeting.catch(() => {});
    stream.on('data', (chunk: Buffer) => {
      this.#buffer += chunk.toString('utf8');
      const lines = this.#buffer.split('\n');
      this.#buffer = lines.pop() ?? '';
      for (const line of lines) if (line.trim()) this.#receive(line);
    });
  }

  #receive(line: string): void {
    const message = JSON.parse(line) as {
      QMP?: unknown;
      id?: number;
      return?: unknown;
      error?: { desc: string };
    };
    if (message.QMP !== undefined) {
      this.#greeted();
      return;
    }
    // Events, which carry no id, tell nothing that the console and QEMU's end do not.
    const call = message.id === undefined ? undefined : this.#pending.get(message.id);
    if (!call || message.id === undefined) return;
    this.#pending.delete(message.id);
    if (message.error) call.reject(new InfraError('qmp-error', `QEMU refused: ${message.error.desc}`));
    else call.resolve(message.return);
  }

  /** Waits for QEMU's greeting and enters command mode. */
  async negotiate(): Promise<void> {
    await withTimeout(this.#greeting, GREETING_SECONDS, 'greet');
    await this.call('qmp_capabilities');
  }

  /** Runs one command and returns its result. Throws InfraError if QEMU refuses it or goes away. */
  call(execute: string, args?: Record<string, unknown>, timeoutSeconds = CALL_SECONDS): Promise<unknown> {
    if (this.#closed) return Promise.reject(new InfraError('qmp-closed', 'QEMU closed its control channel'));
    const id = this.#nextId++;
    const answer = new Promise<unknown>((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      this.#stream.write(`${JSON.stringify({ execute, ...(args ? { arguments: args } : {}), id })}\n`);
    });
    return withTimeout(answer, timeoutSeconds, `answer ${execute}`);
  }
}
