import { Redis } from 'ioredis';
import type * as z from 'zod';
import { firstLine, InfraError, UsageError } from '../base/errors.js';
import type { Accel } from '../vm/qemu-args.js';
import { BEAT_SECONDS, type Version } from './protocol.js';

const CONNECT_SECONDS = 10;

/** A Redis without its password, for people. */
export function shownUrl(url: string): string {
  const shown = new URL(url);
  if (shown.password !== '') shown.password = '***';
  return String(shown);
}

/** Reads `redis://[[user]:password@]host[:port][/db]`, or rediss:// for TLS. Throws UsageError. */
export function checkUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url?.hostname && (url.protocol === 'redis:' || url.protocol === 'rediss:')) return text;
  throw new UsageError(
    'bad-usage',
    `--queue: is no address of a Redis: redis://[:PASSWORD@]HOST[:PORT], or rediss:// with TLS`,
  );
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
    connectTimeout: CONNECT_SECONDS * 1000,
    retryStrategy: (times) => Math.min(times * 100, 2000),
  });
  let last: unknown = null;
  // Without a listener each would be printed.
  redis.on('error', (error: unknown) => {
    last = error;
  });
  let timer: NodeJS.Timeout | undefined;
  try {
    await Promise.race([
      redis.connect().then(() => redis.ping()),
      new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error('no answer')), CONNECT_SECONDS * 1000);
      }),
    ]);
    return redis;
  } catch (error) {
    redis.disconnect();
    const why = firstLine(last ?? error) || 'no answer';
    throw new InfraError('no-queue', `--queue ${shownUrl(url)}: cannot be reached (${why})`, error);
  } finally {
    clearTimeout(timer);
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
  await redis.set(registryKey(kind, id), JSON.stringify(record), 'EX', LIFE_SECONDS);
}

export async function withdraw(redis: Redis, kind: 'worker' | 'run', id: string): Promise<void> {
  await redis.del(registryKey(kind, id));
}

/** What is there of a kind by now, by id. What is not as it should be counts as none. */
export async function announced<S extends z.ZodType>(
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

function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
