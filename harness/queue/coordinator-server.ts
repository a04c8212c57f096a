import { randomBytes, timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, isIPv6 } from 'node:net';
import { hostname } from 'node:os';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type * as z from 'zod';
import { firstLine, UsageError } from '../base/errors.js';
import type { Place } from '../run/runner.js';
import type { Accel } from '../vm/qemu-args.js';
import type { PendingTrial } from './pending-trial.js';
import {
  type Assignment,
  abandonedSchema,
  beatSchema,
  CHUNK_BYTES,
  endedSchema,
  endSchema,
  type Part,
  refusedSchema,
  takeSchema,
  type Version,
  versionText,
} from './protocol.js';

/** Where a coordinator listens; port 0: any that is free. */
export interface ListenAddress {
  host: string;
  port: number;
}

/** Reads `HOST`, `HOST:PORT` or `[IPv6]:PORT`. Throws UsageError. */
export function parseListen(text: string): ListenAddress {
  const [, v6, host = v6, port = '0'] =
    /^(?:\[([0-9a-fA-F:.]+)\]|([\w.-]*[A-Za-z.][\w.-]*))(?::(\d{1,5}))?$/.exec(text) ?? [];
  if (host === undefined || Number(port) > 65535)
    throw new UsageError(
      'bad-usage',
      `--listen ${text}: is no address of this host: 10.0.0.5, 10.0.0.5:8080 or [fd00::5]`,
    );
  return { host, port: Number(port) };
}

/** What a run does for its workers. */
export interface Service {
  version: Version;
  accel: Accel;
  take(id: string, host: Place['host']): Promise<Assignment | 'taken' | 'gone'>;
  refuse(id: string, why: string): void;
  abandon(id: string, worker: string, isFault: boolean): Promise<void>;
  openPart(sha256: string): NodeJS.ReadableStream | null;
  disk(key: string): Promise<Part | null>;
  openDisk(key: string): Promise<{ part: Part; stream: AsyncIterable<Buffer> } | null>;
  /** A trial that is with a worker. */
  trial(id: string): PendingTrial | null;
}

/** No request of a worker has a longer document. */
const MOST_JSON_BYTES = 256 * 1024;

/** A run's HTTP server: parts to its workers, logs from them. Everything takes the run's token. */
export class CoordinatorServer {
  readonly token = randomBytes(32).toString('hex');
  readonly url: string;
  readonly #server: Server;

  private constructor(server: Server, url: string) {
    this.#server = server;
    this.url = url;
  }

  /** Throws UsageError if the address cannot be listened at. */
  static async listen({ host, port }: ListenAddress): Promise<CoordinatorServer> {
    const server = createServer();
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, host, resolve);
    }).catch((error: unknown) => {
      throw new UsageError('bad-usage', `--listen ${host}:${port}: ${firstLine(error)}`, error);
    });
    const address = server.address() as AddressInfo;
    const any = address.address === '0.0.0.0' || address.address === '::';
    const name = any ? hostname() : isIPv6(address.address) ? `[${address.address}]` : address.address;
    return new CoordinatorServer(server, `http://${name}:${address.port}`);
  }

  serve(service: Service): void {
    this.#server.on('request', (request, response) => {
      this.#answer(service, request, response).catch((error: unknown) => {
        if (response.headersSent) response.destroy();
        else send(response, 500, { error: firstLine(error) });
      });
    });
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await closed;
  }

  async #answer(service: Service, request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (!this.#isVouchedFor(request)) return send(response, 401, { error: 'another token' });
    const url = new URL(request.url ?? '/', this.url);
    const [kind = '', id = '', what = '', name = ''] = url.pathname
      .slice(1)
      .split('/')
      .map(decodeURIComponent);
    if (request.method === 'GET' && kind === 'parts') {
      const stream = service.openPart(id);
      if (!stream) return send(response, 404, { error: 'no such part' });
      await pipeline(stream, response);
    } else if (request.method === 'GET' && kind === 'disks' && what === 'part') {
      const part = await service.disk(id);
      send(response, part ? 200 : 404, part ?? { error: 'no such disk' });
    } else if (request.method === 'GET' && kind === 'disks') {
      const disk = await service.openDisk(id);
      if (!disk) return send(response, 404, { error: 'no such disk' });
      await pipeline(Readable.from(disk.stream), response);
    } else if (kind === 'trials' && request.method === 'POST' && what === 'take') {
      const asked = await json(request, takeSchema);
      const { version } = service;
      if (versionText(asked.version) !== versionText(version) || asked.accel !== service.accel)
        return send(response, 412, {
          error: `this run is of ${versionText(version)} on ${service.accel}, the worker is ${versionText(asked.version)} on ${asked.accel}`,
        });
      const given = await service.take(id, asked.host);
      if (given === 'taken') return send(response, 409, { error: 'it is with another worker' });
      send(response, given === 'gone' ? 410 : 200, given === 'gone' ? { error: 'it is over' } : given);
    } else if (kind === 'trials') {
      const trial = service.trial(id);
      if (!trial) return send(response, 410, { error: 'it is over' });
      await answerTrial(service, trial, id, request, response, { what, name, url });
    } else send(response, 404, { error: 'no such thing' });
  }

  #isVouchedFor({ headers }: IncomingMessage): boolean {
    const given = Buffer.from(headers.authorization ?? '');
    const wanted = Buffer.from(`Bearer ${this.token}`);
    return given.length === wanted.length && timingSafeEqual(given, wanted);
  }
}

async function answerTrial(
  service: Service,
  trial: PendingTrial,
  id: string,
  request: IncomingMessage,
  response: ServerResponse,
  { what, name, url }: { what: string; name: string; url: URL },
): Promise<void> {
  if (request.method === 'PUT' && what === 'files') {
    const offset = Number(url.searchParams.get('offset'));
    const done = await trial.append(name, offset, await body(request, CHUNK_BYTES));
    if (done === null) return send(response, 403, { error: `${name} is not taken` });
    return send(response, done.added ? 200 : 409, { bytes: done.bytes });
  }
  if (request.method !== 'POST') return send(response, 404, { error: 'no such thing' });
  switch (what) {
    case 'attend': {
      // Answered when the trial is over; ended with its worker's process, or with this one's.
      const hangUp = trial.attend();
      response.once('close', hangUp);
      response.flushHeaders();
      await Promise.race([trial.dumped, new Promise((resolve) => response.once('close', resolve))]);
      return void response.end();
    }
    case 'beat':
      trial.beat((await json(request, beatSchema)).status);
      return send(response, 200, { stop: trial.isToStop });
    case 'crashed':
      await trial.crashed(await json(request, endSchema));
      return send(response, 200, {});
    case 'abandoned': {
      const { worker, isFault } = await json(request, abandonedSchema);
      await service.abandon(id, worker, isFault);
      return send(response, 200, {});
    }
    case 'ended': {
      const differs = await trial.ended(await json(request, endedSchema));
      return send(response, differs ? 409 : 200, differs ?? {});
    }
    case 'dumped': {
      const differs = await trial.allDumped();
      return send(response, differs ? 409 : 200, differs ?? {});
    }
    case 'refuse': {
      const { why } = await json(request, refusedSchema);
      service.refuse(id, why);
      return send(response, 200, {});
    }
    default:
      return send(response, 404, { error: 'no such thing' });
  }
}

async function body(request: IncomingMessage, most: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request) {
    bytes += (chunk as Buffer).length;
    if (bytes > most) throw new Error('too much at a time');
    chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks);
}

async function json<S extends z.ZodType>(request: IncomingMessage, schema: S): Promise<z.output<S>> {
  return schema.parse(JSON.parse((await body(request, MOST_JSON_BYTES)).toString()));
}

function send(response: ServerResponse, status: number, document: unknown): void {
  response.statusCode = status;
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify(document));
}
