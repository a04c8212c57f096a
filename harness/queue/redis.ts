import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import type * as z from 'zod';
import { firstLine, InfraError, UsageError } from '../base/errors.js';
import { readGiven } from '../base/given-file.js';
import type { Accel } from '../vm/qemu-args.js';
import { BEAT_SECONDS, parsedJson, type Version } from './protocol.js';

/** A Redis without what is secret of it, for people. */
export function shownUrl(url: string): string {
  const { protocol, host, pathname } = new URL(url);
  return `${protocol}//${host}${pathname}`;
}

/** True of a Redis that only this host reaches. */
export function isHere(url: string): boolean {
  return /^(?:localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(new URL(url).hostname);
}

/**
 * Reads `redis://[[user]:password@]host[:port][/db]`, or rediss:// for TLS; `@FILE`: what stands in that file, where `ps` does not show it. Throws
 * UsageError.
 */
export async function readUrl(given: string): Promise<string> {
  const text = given.startsWith('@') ? String(await readGiven(given.slice(1), 1)).trim() : given;
  const url = URL.canParse(text) ? new URL(text) : null;
  const isRedis = url?.protocol === 'redis:' || url?.protocol === 'rediss:';
  if (url?.hostname && isRedis && url.search === '' && isDecodable(url.password)) return text;
  throw new UsageError(
    'bad-usage',
    '--queue: is no address of a Redis: redis://[:PASSWORD@]HOST[:PORT][/DB], rediss:// with TLS, or @FILE that holds one (a % in a password is %25)',
  );
}

function isDecodable(text: string): boolean {
  try {
    decodeURIComponent(text);
    return true;
  } catch {
    return false;
  }
}

const ANSWER_SECONDS = 10;
/** At the end nothing hangs on it any more. */
export const LAST_ANSWER_SECONDS = 2;

/** What is asked of a Redis, which may be connected and not answer: then it throws, and what was asked may still be done. */
export async function bounded<T>(work: Promise<T>, seconds = ANSWER_SECONDS): Promise<T> {
  const over = new AbortController();
  work.catch(() => {});
  try {
    return await Promise.race([
      work,
      sleep(seconds * 1000, undefined, { signal: over.signal }).then(() => {
        throw new InfraError('no-queue', `Redis did not answer within ${seconds} s`);
      }),
    ]);
  } finally {
    over.abort();
  }
}

/**
 * A connection that waits out a Redis which goes away. Throws InfraError if there is none at first. A certificate authority of one's own: Node's
 * NODE_EXTRA_CA_CERTS.
 */
export async function connectRedis(url: string): Promise<Redis> {
  const redis = new Redis(url, {
    maxRetriesPerRequest: null,
    lazyConnect: true,
    enableReadyCheck: true,
    connectTimeout: ANSWER_SECONDS * 1000,
    keepAlive: 10_000,
    retryStrategy: (times) => Math.min(times * 100, 2000),
  });
  let last: unknown = null;
  // Without a listener each would be printed.
  redis.on('error', (error: unknown) => {
    last = error;
  });
  try {
    await bounded(redis.connect().then(() => redis.ping()));
    return redis;
  } catch (error) {
    redis.disconnect();
    const why = firstLine(last ?? error);
    throw new InfraError('no-queue', `--queue ${shownUrl(url)}: cannot be reached (${why})`, error);
  }
}

/** Name of the queue for one version, accelerator and label: a worker is handed nothing that it could not run. */
export function queueName({ code }: Version, accel: Accel, label: string | null): string {
  return `loopanic-${code}-${accel}${label === null ? '' : `-${label}`}`;
}

const LIFE_SECONDS = 6 * BEAT_SECONDS;
const registryKey = (kind: 'worker' | 'run', id: string): string => `loopanic:${kind}:${id}`;

/** Tells in Redis that something is there, for as long as it is told again. */
export async function announce(
  redis: Redis,
  kind: 'worker' | 'run',
  id: string,
  record: unknown,
): Promise<void> {
  await bounded(redis.set(registryKey(kind, id), JSON.stringify(record), 'EX', LIFE_SECONDS));
}

export async function withdraw(redis: Redis, kind: 'worker' | 'run', id: string): Promise<void> {
  await bounded(redis.del(registryKey(kind, id)));
}

/** True while something is told to be there. */
export async function isAnnounced(redis: Redis, kind: 'worker' | 'run', id: string): Promise<boolean> {
  return (await bounded(redis.exists(registryKey(kind, id)))) > 0;
}

/** What is there of a kind by now, by id. What is not as it should be counts as none. */
export async function announced<S extends z.ZodType>(
  redis: Redis,
  kind: 'worker' | 'run',
  schema: S,
): Promise<Map<string, z.output<S>>> {
  return bounded(allAnnounced(redis, kind, schema));
}

async function allAnnounced<S extends z.ZodType>(
  redis: Redis,
  kind: 'worker' | 'run',
  schema: S,
): Promise<Map<string, z.output<S>>> {
  const found = new Map<string, z.output<S>>();
  const prefix = registryKey(kind, '');
  for await (const keys of redis.scanStream({ match: `${prefix}*`, count: 1000 }))
    for (const key of keys as string[]) {
      const text = await redis.get(key);
      const parsed = schema.safeParse(text === null ? null : parsedJson(text));
      if (parsed.success) found.set(key.slice(prefix.length), parsed.data);
    }
  return found;
}
