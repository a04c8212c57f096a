import { mkdir, readdir, symlink } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { execa } from 'execa';
import { cacheDir } from '../../base/paths.js';
import { type RunDocument, runSchema } from '../../results/run-schema.js';
import { startLoopanic } from './cli.js';

/** Where something is set up, and who is told how to end it. */
interface Bench {
  t: { teardown: (end: () => Promise<void>) => void };
  dir: string;
  env?: Record<string, string>;
}

/** A port on 127.0.0.1 that was free just now. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

const startRedis = ([program = '', ...args]: string[]) =>
  execa(program, args, { reject: false, stdin: 'ignore', cleanup: true });

/** A real Redis that can be ended and started again, in memory alone. */
export class TestRedis {
  readonly port: number;
  readonly url: string;
  readonly #args: string[];
  #child: ReturnType<typeof startRedis> | undefined;

  private constructor(port: number, host: string, args: string[]) {
    this.port = port;
    this.url = `redis://${host}:${port}`;
    this.#args = ['--port', `${port}`, '--bind', host, '--save', '', '--appendonly', 'no', ...args];
  }

  /** `args` come after its own. */
  static async start(
    { t, dir }: Bench,
    { host = '127.0.0.1', args = [] as string[] } = {},
  ): Promise<TestRedis> {
    const redis = new TestRedis(await freePort(), host, ['--dir', dir, ...args]);
    t.teardown(() => redis.stop('SIGKILL'));
    await redis.up();
    return redis;
  }

  async up(): Promise<void> {
    this.#child = startRedis(['redis-server', ...this.#args]);
    for (let tries = 0; tries < 100; tries++) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      const host = new URL(this.url).hostname;
      const asked = await execa('redis-cli', ['-h', host, '-p', `${this.port}`, 'ping'], { reject: false });
      if (/PONG|NOAUTH/.test(`${asked.stdout}${asked.stderr}`)) return;
    }
    throw new Error('redis-server did not start');
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    this.#child?.kill(signal);
    await this.#child;
    this.#child = undefined;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child?.kill(signal);
  }

  async cli(...args: string[]): Promise<string> {
    const { stdout } = await execa('redis-cli', ['-p', `${this.port}`, ...args]);
    return stdout;
  }
}

interface WorkerWishes {
  args?: string[];
  command?: string[];
  /** Its cache is empty. */
  isBare?: boolean;
  env?: Record<string, string>;
}

/** A worker with a cache of its own, whose kernels, images and disks are this host's. */
export class TestWorker {
  readonly child: ReturnType<typeof startLoopanic>;
  #said = '';

  private constructor(child: ReturnType<typeof startLoopanic>) {
    this.child = child;
    child.stderr.on('data', (chunk: Buffer) => {
      this.#said += chunk.toString();
    });
  }

  static async start(
    bench: Bench,
    url: string,
    name: string,
    { args = [], command, isBare = false, env = {} as Record<string, string> }: WorkerWishes = {},
  ): Promise<TestWorker> {
    const cache = join(bench.dir, name);
    const own = join(cache, 'loopanic');
    await mkdir(own, { recursive: true });
    const there = await readdir(own);
    for (const part of isBare ? [] : ['kernels', 'images', 'luns', 'modules', 'probes', 'apt'])
      if (!there.includes(part)) await symlink(cacheDir(part), join(own, part));
    const words = ['worker', '--queue', url, '--jobs', '1', '--accel', 'tcg', ...args];
    const all = { ...bench.env, XDG_CACHE_HOME: cache, ...env };
    const worker = new TestWorker(startLoopanic(words, all, command));
    bench.t.teardown(() => worker.stop('SIGKILL').then(() => undefined));
    return worker;
  }

  get said(): string {
    return this.#said;
  }

  async until(pattern: RegExp, seconds = 60): Promise<void> {
    const end = performance.now() + seconds * 1000;
    while (!pattern.test(this.#said)) {
      if (performance.now() > end) throw new Error(`the worker did not say ${pattern}: ${this.#said}`);
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | undefined> {
    this.child.kill(signal);
    return (await this.child).exitCode;
  }
}

/** What a command that was started has printed as its run. */
export async function runOf(child: ReturnType<typeof startLoopanic>): Promise<{
  code: number | undefined;
  run: RunDocument;
  stderr: string;
}> {
  const { exitCode, stdout, stderr } = await child;
  let run: RunDocument;
  try {
    run = runSchema.parse(JSON.parse(stdout));
  } catch (error) {
    throw new Error(`no run was printed: ${stdout.slice(0, 500)} ${stderr}`, { cause: error });
  }
  return { code: exitCode, run, stderr };
}
