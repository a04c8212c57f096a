import { setTimeout as sleep } from 'node:timers/promises';
import { firstLine, InfraError } from '../base/errors.js';
import { HUNG_UP_SECONDS, LOST_SECONDS, type Part, parsedJson, partSchema, type Ticket } from './protocol.js';

/** For a piece of a file on a slow line, too. */
const REQUEST_SECONDS = 60;
const RETRY_MS = 1000;

/** What a coordinator answered. */
export interface Answer {
  status: number;
  document: Record<string, unknown>;
}

/** The coordinator of one trial, as its worker reaches it. */
export class CoordinatorClient {
  readonly #ticket: Ticket;
  readonly #signal: AbortSignal;
  #lastAnswer = performance.now();
  #hasLine = false;

  /** `signal`: nothing is waited for any more. */
  constructor(ticket: Ticket, signal: AbortSignal) {
    this.#ticket = ticket;
    this.#signal = signal;
  }

  /** The same coordinator, for what is to end with `signal`. */
  until(signal: AbortSignal): CoordinatorClient {
    return new CoordinatorClient(this.#ticket, AbortSignal.any([this.#signal, signal]));
  }

  /** Holds a line to it, until `signal`: that it is ended shows at once that the other's process is gone. */
  attend(signal: AbortSignal): void {
    void (async () => {
      while (!signal.aborted && !this.#signal.aborted) {
        try {
          const path = `trials/${this.#ticket.trial}/attend`;
          const response = await this.#request(path, { method: 'POST', body: '{}' }, null, signal);
          if (response.status !== 200) return;
          this.#hasLine = true;
          for await (const _ of response.body ?? []);
        } catch {
          // It is tried again below.
        }
        this.#hasLine = false;
        await sleep(RETRY_MS);
      }
    })();
  }

  /** True if it has not been heard of for so long that it is gone, or has given this worker up. */
  get isLost(): boolean {
    const silence = (performance.now() - this.#lastAnswer) / 1000;
    return silence > (this.#hasLine ? LOST_SECONDS : HUNG_UP_SECONDS);
  }

  /** Tells it something of the trial, once. Throws InfraError if it cannot be reached. */
  async tell(what: string, document: unknown, seconds = REQUEST_SECONDS): Promise<Answer> {
    const init = { method: 'POST', body: JSON.stringify(document) };
    return this.#answer(await this.#request(`trials/${this.#ticket.trial}/${what}`, init, seconds));
  }

  /** The same, again and again until it answers, or has been silent for so long that it has given this worker up. */
  async insist(what: string, document: unknown): Promise<Answer> {
    return this.#insist(() => this.tell(what, document));
  }

  /** Sends what comes next of a file. */
  async append(name: string, offset: number, content: Buffer): Promise<Answer> {
    const path = `trials/${this.#ticket.trial}/files/${name}?offset=${offset}`;
    return this.#insist(async () =>
      this.#answer(await this.#request(path, { method: 'PUT', body: new Uint8Array(content) })),
    );
  }

  /** A part or disk, as it comes. Throws InfraError. */
  async open(path: string): Promise<AsyncIterable<Uint8Array>> {
    const response = await this.#request(path, {}, null);
    if (response.status !== 200 || !response.body)
      throw new InfraError('part-lost', `its coordinator has no ${path} (${response.status})`);
    return response.body;
  }

  /** What a disk is. Throws InfraError if it has none. */
  async disk(key: string): Promise<Part> {
    const { status, document } = await this.#answer(
      await this.#request(`disks/${encodeURIComponent(key)}/part`, {}, null),
    );
    if (status !== 200) throw new InfraError('part-lost', `its coordinator has no disk ${key} (${status})`);
    return partSchema.parse(document);
  }

  async #insist(ask: () => Promise<Answer>): Promise<Answer> {
    for (;;)
      try {
        return await ask();
      } catch (error) {
        if (this.#signal.aborted || this.isLost) throw error;
        await sleep(RETRY_MS);
      }
  }

  async #answer(response: Response): Promise<Answer> {
    const text = await response.text();
    this.#lastAnswer = performance.now();
    return { status: response.status, document: (parsedJson(text) ?? {}) as Answer['document'] };
  }

  async #request(
    path: string,
    init: RequestInit,
    seconds: number | null = REQUEST_SECONDS,
    until: AbortSignal = this.#signal,
  ): Promise<Response> {
    const { url, token } = this.#ticket;
    const signals = [this.#signal, until, ...(seconds === null ? [] : [AbortSignal.timeout(seconds * 1000)])];
    try {
      return await fetch(`${url}/${path}`, {
        ...init,
        headers: { authorization: `Bearer ${token}` },
        // Nobody else is to get the token.
        redirect: 'error',
        signal: AbortSignal.any(signals),
      });
    } catch (error) {
      const { cause } = error as { cause?: unknown };
      throw new InfraError(
        'no-coordinator',
        `${url}: cannot be reached (${firstLine(cause ?? error)})`,
        error,
      );
    }
  }
}
