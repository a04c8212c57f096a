import { cp, mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { Queue } from 'bullmq';
import { execa } from 'execa';
import { Redis } from 'ioredis';
import { packageRoot } from '../../base/paths.js';
import { ownVersion, type Ticket } from '../../queue/protocol.js';
import type { RunDocument } from '../../results/run-schema.js';
import type { startLoopanic } from '../support/cli.js';
import { FaultBench, smallDisk } from '../support/fault-bench.js';
import { freePort, runOf, TestRedis, TestWorker } from '../support/queue-bench.js';

// Trials through a queue, whose workers, coordinator, Redis and network fail: no trial is lost without a trace, none counts twice, and nothing
// is green that was not seen whole.
const PANICS = { unpatched: ['panic'] };

const tested = (run: RunDocument) => run.cells[1] as RunDocument['cells'][0];
const outcomes = (run: RunDocument): string[] => tested(run).trials.map(({ outcome }) => outcome);
const numbers = (run: RunDocument): number[] => tested(run).trials.map(({ trial }) => trial);
const SURVIVED = ['survived', 'survived', 'survived'];

/** Every trial is there once, with the logs that it is judged by. */
async function nothingDoubled(bench: FaultBench, run: RunDocument): Promise<void> {
  for (const cell of run.cells)
    bench.t.deepEqual(
      cell.trials.map(({ trial }) => trial),
      cell.trials.map((_, index) => index + 1),
    );
  const folders = run.cells.flatMap(({ trials }) => trials.map(({ folder }) => folder));
  bench.t.is((await bench.trials()).length, folders.length);
  const { code, stderr } = await bench.query('report', run.run, '--format', 'json');
  bench.t.is(code, 0, stderr);
}

function start(
  bench: FaultBench,
  args: string[],
  url: string,
  ...more: string[]
): ReturnType<typeof startLoopanic> {
  return bench.start([...args, '--queue', url, '--json', ...more]);
}

test('undisturbed, with a password over TLS: the verdicts of one machine, and each trial names its host', (t) =>
  FaultBench.scripted(t, async (bench) => {
    await bench.script({ ...PANICS, 'compound-head': ['survive'] });
    const [key, cert] = [join(bench.dir, 'key.pem'), join(bench.dir, 'cert.pem')] as const;
    await execa('openssl', [
      ...['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-out', cert, '-days', '2'],
      ...['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1'],
    ]);
    const tlsPort = await freePort();
    await TestRedis.start(bench, {
      args: [
        ...['--requirepass', 's3cret', '--tls-port', `${tlsPort}`, '--tls-auth-clients', 'no'],
        ...['--tls-cert-file', cert, '--tls-key-file', key, '--tls-ca-cert-file', cert],
      ],
    });
    const url = `rediss://:s3cret@127.0.0.1:${tlsPort}`;
    bench.env.NODE_EXTRA_CA_CERTS = cert;
    const args = await bench.pair();
    const workers = [await TestWorker.start(bench, url, 'w1'), await TestWorker.start(bench, url, 'w2')];
    const { code, run, stderr } = await runOf(start(bench, args, url));
    t.is(code, 0, stderr);
    t.deepEqual(
      run.cells.map(({ verdict }) => verdict),
      ['panics', 'clean'],
    );
    t.deepEqual(outcomes(run), SURVIVED);
    for (const { host } of run.cells.flatMap(({ trials }) => trials))
      t.deepEqual(host, { name: hostname(), qemu: 'QEMU emulator version 0.0.0 (fake)' });
    await nothingDoubled(bench, run);
    for (const worker of workers) t.notRegex(worker.said, /s3cret/);
    t.notRegex(stderr, /s3cret/);
    // The same without a queue.
    const { stdout } = await bench.command([...args, '--json']);
    const alone = JSON.parse(stdout) as RunDocument;
    for (const [index, cell] of run.cells.entries()) {
      const { reason, statistics, key: name } = alone.cells[index] as RunDocument['cells'][0];
      t.deepEqual([cell.reason, cell.statistics, cell.key], [reason, statistics, name]);
    }
    // The trial's folder is as one of this host: its report and its resumption read it.
    const [dir = ''] = await bench.trials('compound-head');
    const names = await readdir(dir);
    t.deepEqual(names.sort(), ['guest.log', 'outcome.json', 'plan.json', 'qemu.log', 'serial.log']);
    await bench.record('none', 'a queue with a password over TLS', 'as without a queue');
  }));

for (const [phase, mode, until, outcome] of [
  ['boot', 'stalls@boot', ': up', 'infra-error'],
  ['modules', 'stalls@modules', 'phase modules', 'infra-error'],
  ['target', 'stalls@target', 'phase target', 'infra-error'],
  ['login', 'stalls@login', 'phase login', 'infra-error'],
  ['mount', 'stalls@mount', 'phase mount', 'infra-error'],
  ['workload', 'hang-with-heartbeat', 'phase workload', 'infra-error'],
  ['done', 'stalls@done', 'done cycles', 'infra-error'],
  ['in the middle of a panic', 'half-then-wait', 'kernel BUG at', 'other-crash'],
  ['after a warning', 'warn-then-hang', 'skb_splice_from_iter', 'warned'],
] as const)
  test(`the worker is killed: ${phase}: ${outcome}, and another goes on`, (t) =>
    FaultBench.scripted(t, async (bench) => {
      await bench.script({ ...PANICS, 'compound-head': [mode, 'survive'] });
      const redis = await TestRedis.start(bench);
      const first = await TestWorker.start(bench, redis.url, 'w1');
      const child = start(bench, await bench.pair(), redis.url);
      const dir = await bench.until(until, 'compound-head');
      const said = await readFile(join(dir, 'serial.log'), 'latin1');
      await first.stop('SIGKILL');
      await TestWorker.start(bench, redis.url, 'w2');
      const { run } = await runOf(child);
      t.is(outcomes(run)[0], outcome, tested(run).trials[0]?.reason);
      // What it had said is there.
      t.true((await readFile(join(dir, 'serial.log'), 'latin1')).startsWith(said));
      if (outcome === 'infra-error') {
        t.regex(tested(run).trials[0]?.reason ?? '', /worker on \S+ was lost/);
        t.deepEqual(outcomes(run), [outcome, ...SURVIVED]);
        t.is(tested(run).verdict, 'clean');
      } else t.is(tested(run).verdict, 'inconclusive');
      await nothingDoubled(bench, run);
      await bench.record('worker killed', phase, `${outcome}; ${tested(run).verdict}`);
    }));

test('a worker is told to end: its trial is cut off at once, and another goes on', (t) =>
  FaultBench.scripted(t, async (bench) => {
    await bench.script({ ...PANICS, 'compound-head': ['hang-with-heartbeat', 'survive'] });
    const redis = await TestRedis.start(bench);
    const first = await TestWorker.start(bench, redis.url, 'w1');
    const child = start(bench, await bench.pair(), redis.url);
    await bench.until('phase workload', 'compound-head');
    t.is(await first.stop('SIGTERM'), 130);
    await TestWorker.start(bench, redis.url, 'w2');
    const { run } = await runOf(child);
    t.deepEqual(outcomes(run), ['infra-error', ...SURVIVED]);
    t.regex(tested(run).trials[0]?.reason ?? '', /worker on \S+ was stopped/);
    await nothingDoubled(bench, run);
    await bench.record('worker told to end', 'workload', 'infra-error; clean');
  }));

for (const signal of ['SIGKILL', 'SIGINT'] as const)
  test(`the coordinator is ended by ${signal} and resumed: the trial was cut off, and its worker takes the next`, (t) =>
    FaultBench.scripted(t, async (bench) => {
      await bench.script({ ...PANICS, 'compound-head': ['hang-with-heartbeat', 'survive'] });
      const redis = await TestRedis.start(bench);
      const worker = await TestWorker.start(bench, redis.url, 'w1');
      const args = await bench.pair();
      const child = start(bench, args, redis.url);
      await bench.until('phase workload', 'compound-head');
      child.kill(signal);
      const { exitCode } = await child;
      if (signal === 'SIGINT') t.is(exitCode, 130);
      const { code, run } = await runOf(start(bench, args, redis.url, '--resume', await bench.runId()));
      t.is(code, 0);
      t.deepEqual(outcomes(run), ['infra-error', ...SURVIVED]);
      t.is(tested(run).verdict, 'clean');
      await nothingDoubled(bench, run);
      await worker.stop();
      t.deepEqual(await redis.cli('keys', 'loopanic:*'), '');
      await bench.record(`coordinator ended by ${signal}, resumed`, 'workload', 'infra-error; clean');
    }));

test('the coordinator is killed while a panic is printed: what it had by then counts when it is resumed', (t) =>
  FaultBench.scripted(t, async (bench) => {
    await bench.script({ ...PANICS, 'compound-head': ['half-then-wait', 'survive'] });
    const redis = await TestRedis.start(bench);
    await TestWorker.start(bench, redis.url, 'w1');
    const args = await bench.pair();
    const child = start(bench, args, redis.url);
    await bench.until('kernel BUG at', 'compound-head');
    child.kill('SIGKILL');
    await child;
    const { run } = await runOf(start(bench, args, redis.url, '--resume', await bench.runId()));
    t.is(outcomes(run)[0], 'other-crash');
    t.not(tested(run).verdict, 'clean');
    await nothingDoubled(bench, run);
    await bench.record('coordinator killed, resumed', 'panic', `other-crash; ${tested(run).verdict}`);
  }));

for (const [what, mend] of [
  ['restarted', async () => {}],
  ['gone for a minute', () => new Promise((resolve) => setTimeout(resolve, 60_000))],
] as const)
  test(`Redis is ${what} while a trial runs: it goes on, and so does the run`, (t) =>
    FaultBench.scripted(t, async (bench) => {
      await bench.script({ ...PANICS, 'compound-head': ['slow-survive'] });
      const redis = await TestRedis.start(bench);
      await TestWorker.start(bench, redis.url, 'w1');
      const child = start(bench, await bench.pair(), redis.url);
      await bench.until('phase workload', 'compound-head');
      await redis.stop('SIGKILL');
      await mend();
      await redis.up();
      const { code, run, stderr } = await runOf(child);
      t.is(code, 0, stderr);
      t.deepEqual(outcomes(run), SURVIVED);
      await nothingDoubled(bench, run);
      await bench.record(`Redis ${what}`, 'workload', 'survived; clean');
    }));

test('Redis is emptied while trials wait: their tickets are written anew', (t) =>
  FaultBench.scripted(t, async (bench) => {
    await bench.script({ ...PANICS, 'compound-head': ['survive'] });
    const redis = await TestRedis.start(bench);
    const first = await TestWorker.start(bench, redis.url, 'w1');
    const child = start(bench, await bench.pair(), redis.url);
    await bench.until('phase', 'unpatched');
    // With no worker its tickets stay, until they are gone.
    await first.stop();
    await new Promise((resolve) => setTimeout(resolve, 5000));
    await redis.cli('flushall');
    await TestWorker.start(bench, redis.url, 'w2');
    const { run, code, stderr } = await runOf(child);
    t.is(code, 0, stderr);
    t.deepEqual(outcomes(run), SURVIVED);
    await nothingDoubled(bench, run);
    await bench.record('Redis emptied', 'trials wait', 'survived; clean');
  }));

/** Tickets that wait in the only queue. */
async function waitingTickets(
  { t }: FaultBench,
  redis: TestRedis,
): Promise<{ queue: Queue<Ticket>; tickets: Ticket[] }> {
  const connection = new Redis(redis.url, { maxRetriesPerRequest: null, retryStrategy: () => null });
  const queue = new Queue<Ticket>(await queueOf(redis), { connection });
  for (const part of [connection, queue]) part.on('error', () => {});
  t.teardown(() => connection.disconnect());
  for (let tries = 0; tries < 200; tries++) {
    const jobs = await queue.getJobs(['waiting', 'prioritized']);
    if (jobs.length > 0) return { queue, tickets: jobs.map(({ data }) => data) };
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error('no ticket waits');
}

test('tickets that say nothing, and copies of one: no worker falls over, and no trial runs twice', (t) =>
  FaultBench.scripted(t, async (bench) => {
    await bench.script({ ...PANICS, 'compound-head': ['survive'] });
    const redis = await TestRedis.start(bench);
    const child = start(bench, await bench.pair(), redis.url);
    const { queue, tickets } = await waitingTickets(bench, redis);
    for (const data of [{ nonsense: 1 }, { ...tickets[0], url: 'file:///etc/passwd' }, 7, null])
      await queue.add('trial', data as never);
    for (let copies = 0; copies < 4; copies++) await queue.add('trial', tickets[0] as Ticket);
    const gone = { ...(tickets[0] as Ticket), url: 'http://127.0.0.1:9' };
    await queue.add('trial', gone);
    const workers = [
      await TestWorker.start(bench, redis.url, 'w1'),
      await TestWorker.start(bench, redis.url, 'w2'),
    ];
    const { code, run, stderr } = await runOf(child);
    t.is(code, 0, stderr);
    t.deepEqual(outcomes(run), SURVIVED);
    await nothingDoubled(bench, run);
    for (const worker of workers) t.is(await worker.stop(), 130, worker.said);
    await bench.record('tickets that say nothing, or twice the same', 'trials wait', 'survived; clean');
  }));

test('a worker that lies: what it says that a trial was is not what counts, and nothing is taken without the token', (t) =>
  FaultBench.scripted(t, async (bench) => {
    await bench.script({ ...PANICS, 'compound-head': ['survive'] });
    const redis = await TestRedis.start(bench);
    const child = start(bench, await bench.pair(), redis.url);
    const { tickets } = await waitingTickets(bench, redis);
    const [{ url, token, trial } = { url: '', token: '', trial: '' }] = tickets;
    const ask = async (path: string, document: unknown, bearer = token, method = 'POST') => {
      const body =
        method === 'GET' ? undefined : typeof document === 'string' ? document : JSON.stringify(document);
      return fetch(`${url}/${path}`, {
        method,
        ...(body === undefined ? {} : { body }),
        headers: { authorization: `Bearer ${bearer}`, connection: 'close' },
      });
    };
    const version = await ownVersion();
    const host = { name: 'liar', qemu: 'QEMU' };
    const take = { version, host, accel: 'tcg' };
    t.is((await ask(`trials/${trial}/take`, take, 'x'.repeat(64))).status, 401);
    const other = await ask(`trials/${trial}/take`, {
      ...take,
      version: { ...version, code: 'f'.repeat(16) },
    });
    t.is(other.status, 412);
    t.regex(await other.text(), new RegExp(`${version.code}.*ffffffffffffffff`));
    t.is((await ask(`trials/${trial}/take`, { ...take, accel: 'kvm' })).status, 412);
    const taken = await ask(`trials/${trial}/take`, take);
    t.is(taken.status, 200);
    const { parts } = (await taken.json()) as { parts: { kernel: { sha256: string } } };
    t.is((await ask(`trials/${trial}/take`, take)).status, 409);
    t.is((await ask(`trials/${'0'.repeat(24)}/take`, take)).status, 410);
    t.is((await ask(`parts/${parts.kernel.sha256}`, '', 'x'.repeat(64), 'GET')).status, 401);
    t.is((await ask(`parts/${'0'.repeat(64)}`, '', token, 'GET')).status, 404);
    for (const name of ['outcome.json', 'plan.json', 'vmcore', '..%2f..%2frun.json', 'run.json'])
      t.is((await ask(`trials/${trial}/files/${name}?offset=0`, 'x', token, 'PUT')).status, 403, name);
    const large = await ask(`trials/${trial}/files/serial.log?offset=0`, 'x'.repeat(5e6), token, 'PUT').catch(
      () => null,
    );
    t.not(large?.status, 200);
    t.is((await ask(`trials/${trial}/files/serial.log?offset=7`, 'x', token, 'PUT')).status, 409);
    const hash = '0'.repeat(64);
    const unsent = { 'serial.log': { sha256: hash, bytes: 9 } };
    const end = { why: 'finished', lunBytesWritten: 1e9 };
    t.is((await ask(`trials/${trial}/ended`, { end, timings: {}, files: unsent })).status, 409);
    t.is(
      (await ask(`trials/${trial}/ended`, { end, timings: {}, files: {}, outcome: 'survived' })).status,
      200,
    );
    t.is((await ask(`trials/${trial}/files/serial.log?offset=0`, 'x', token, 'PUT')).status, 410);
    await TestWorker.start(bench, redis.url, 'w1');
    const { run } = await runOf(child);
    const [first] = run.cells[0]?.trials ?? [];
    t.is(first?.outcome, 'infra-error', first?.reason);
    t.is(first?.host?.name, 'liar');
    await nothingDoubled(bench, run);
    await bench.record('a worker that claims what it did not send', 'control', 'infra-error, tried again');
  }));

test('two runs on one queue, and three workers: each has its own trials', (t) =>
  FaultBench.scripted(t, async (bench) => {
    await bench.script({ ...PANICS, 'compound-head': ['survive'] });
    const redis = await TestRedis.start(bench);
    const args = await bench.pair();
    for (const name of ['w1', 'w2', 'w3']) await TestWorker.start(bench, redis.url, name);
    const both = await Promise.all([
      runOf(start(bench, args, redis.url)),
      runOf(start(bench, args, redis.url)),
    ]);
    for (const { code, run, stderr } of both) {
      t.is(code, 0, stderr);
      t.deepEqual(outcomes(run), SURVIVED);
      t.deepEqual(numbers(run), [1, 2, 3]);
    }
    t.not(both[0].run.run, both[1].run.run);
    await bench.record('two coordinators on one queue', 'all', 'each as alone');
  }));

test('a worker of another version gets nothing, and both say which they are', (t) =>
  FaultBench.scripted(t, async (bench) => {
    await bench.script({ ...PANICS, 'compound-head': ['survive'] });
    const redis = await TestRedis.start(bench);
    const other = join(bench.dir, 'other');
    await mkdir(other);
    for (const name of ['package.json', 'dist', 'vm-images', 'scenarios'])
      await cp(join(packageRoot, name), join(other, name), { recursive: true });
    await symlink(join(packageRoot, 'node_modules'), join(other, 'node_modules'));
    await writeFile(join(other, 'dist/another.js'), '');
    const stranger = await TestWorker.start(bench, redis.url, 'w1', {
      command: [process.execPath, join(other, 'dist/cli/main.js')],
    });
    await stranger.until(/waits at/);
    const args = await bench.pair();
    const alone = await bench.command([...args, '--queue', redis.url, '--worker-wait', '15']);
    t.is(alone.code, 3);
    t.regex(alone.stderr, /\[no-worker\]/);
    const said =
      /the worker on \S+ is loopanic 0\.1\.0 \(([0-9a-f]{16})\), this is loopanic 0\.1\.0 \(([0-9a-f]{16})\)/;
    const [, theirs, ours] = said.exec(alone.stderr) ?? [];
    t.truthy(theirs, alone.stderr);
    t.not(theirs, ours);
    t.regex(
      stranger.said,
      new RegExp(`is of loopanic 0\\.1\\.0 \\(${ours}\\), this worker is loopanic 0\\.1\\.0 \\(${theirs}\\)`),
    );
    // What was given up goes on when there is one.
    await TestWorker.start(bench, redis.url, 'w2');
    const { code, run } = await runOf(start(bench, args, redis.url, '--resume', await bench.runId()));
    t.is(code, 0);
    t.deepEqual(outcomes(run), SURVIVED);
    await stranger.stop();
    await bench.record('a worker of another version', 'all', 'it gets none; both versions are told');
  }));

test("a worker's disk is full: it takes nothing until there is room", (t) =>
  FaultBench.scripted(t, async (bench) => {
    await bench.script({ ...PANICS, 'compound-head': ['survive'] });
    const redis = await TestRedis.start(bench);
    await smallDisk(t, join(bench.dir, 'w1'), 600);
    const fill = join(bench.dir, 'w1/fill');
    await execa('dd', ['if=/dev/zero', `of=${fill}`, 'bs=1M', 'count=200']);
    const full = await TestWorker.start(bench, redis.url, 'w1');
    await full.until(/only \d+ MiB are free for the cache: takes no trials/);
    const child = start(bench, await bench.pair(), redis.url);
    await new Promise((resolve) => setTimeout(resolve, 3000));
    t.deepEqual(await bench.trials(), []);
    await rm(fill);
    const { code, run, stderr } = await runOf(child);
    t.is(code, 0, stderr);
    t.deepEqual(outcomes(run), SURVIVED);
    t.regex(full.said, /the disk has room again/);
    await full.stop();
    await execa('umount', [join(bench.dir, 'w1')]);
    await bench.record("a worker's disk is full", 'before a trial', 'it takes none; survived; clean');
  }));

test("a worker's disk fills during a trial: that one says nothing, and another worker goes on", (t) =>
  FaultBench.scripted(t, async (bench) => {
    await bench.script({ ...PANICS, 'compound-head': ['hang-with-heartbeat', 'survive'] });
    const redis = await TestRedis.start(bench);
    await smallDisk(t, join(bench.dir, 'w1'), 900);
    const first = await TestWorker.start(bench, redis.url, 'w1');
    const child = start(bench, await bench.pair(), redis.url);
    await bench.until('phase workload', 'compound-head');
    await execa('dd', ['if=/dev/zero', `of=${join(bench.dir, 'w1/fill')}`, 'bs=1M'], { reject: false });
    await TestWorker.start(bench, redis.url, 'w2');
    const { run, stderr } = await runOf(child);
    t.deepEqual(outcomes(run), ['infra-error', ...SURVIVED], stderr);
    t.is(tested(run).verdict, 'clean');
    await nothingDoubled(bench, run);
    await first.stop();
    await execa('umount', ['-l', join(bench.dir, 'w1')]);
    await bench.record("a worker's disk fills", 'workload', 'infra-error; clean');
  }));

test('a trial that takes its worker with it, each time: it is set aside, and the other cells are run', (t) =>
  FaultBench.scripted(t, async (bench) => {
    await bench.script({ ...PANICS, 'compound-head': ['kills-its-host'] });
    const redis = await TestRedis.start(bench);
    const child = start(bench, await bench.pair(), redis.url);
    for (const name of ['w1', 'w2', 'w3', 'w4', 'w5']) await TestWorker.start(bench, redis.url, name);
    const { code, run } = await runOf(child);
    t.is(code, 3);
    t.is(run.cells[0]?.verdict, 'panics');
    t.is(tested(run).verdict, 'inconclusive');
    t.is(outcomes(run).length, 3);
    t.regex(tested(run).reason, /worker on \S+ was lost.*set aside/);
    await nothingDoubled(bench, run);
    await bench.record(
      'a trial kills its worker each time',
      'workload',
      'set aside after three; inconclusive',
    );
  }));

test('the network to one worker is cut: its trial is cut off, and what it brings later is not taken', (t) =>
  FaultBench.scripted(t, async (bench) => {
    await bench.script({ ...PANICS, 'compound-head': ['hang-with-heartbeat', 'survive'] });
    const id = `${process.pid % 10000}${Math.floor(Math.random() * 1000)}`;
    const [space, ours, theirs] = [`lp${id}`, `lpa${id}`, `lpb${id}`];
    const ip = (...words: string[]) => execa('ip', words);
    await ip('netns', 'add', space);
    t.teardown(() => execa('ip', ['netns', 'del', space], { reject: false }).then(() => undefined));
    t.teardown(() => execa('ip', ['link', 'del', ours], { reject: false }).then(() => undefined));
    await ip('link', 'add', ours, 'type', 'veth', 'peer', 'name', theirs);
    await ip('link', 'set', theirs, 'netns', space);
    await ip('addr', 'add', '10.213.7.1/30', 'dev', ours);
    await ip('link', 'set', ours, 'up');
    await ip('-n', space, 'addr', 'add', '10.213.7.2/30', 'dev', theirs);
    await ip('-n', space, 'link', 'set', theirs, 'up');
    await ip('-n', space, 'link', 'set', 'lo', 'up');
    const redis = await TestRedis.start(bench, { host: '10.213.7.1', args: ['--protected-mode', 'no'] });
    const far = await TestWorker.start(bench, redis.url, 'w1', {
      command: [
        ...['ip', 'netns', 'exec', space],
        ...[process.execPath, join(packageRoot, 'dist/cli/main.js')],
      ],
    });
    const child = start(bench, await bench.pair(), redis.url, '--listen', '10.213.7.1');
    await bench.until('phase workload', 'compound-head');
    await ip('link', 'set', ours, 'down');
    await ip('addr', 'flush', 'dev', ours);
    // A host's own address is reached over lo, whatever its link does.
    await ip('addr', 'add', '10.213.7.1/30', 'dev', 'lo');
    await TestWorker.start(bench, redis.url, 'w2');
    const { run, stderr } = await runOf(child);
    t.deepEqual(outcomes(run), ['infra-error', ...SURVIVED], stderr);
    t.regex(tested(run).trials[0]?.reason ?? '', /not heard of for 6\d s/);
    t.is(tested(run).verdict, 'clean');
    await nothingDoubled(bench, run);
    await ip('addr', 'del', '10.213.7.1/30', 'dev', 'lo');
    // It has noticed, too: its guest is gone.
    await far.until(/cannot be reached|takes no more|does not answer/, 100);
    await far.stop();
    await bench.record('the network to one worker is cut', 'workload', 'infra-error; clean');
  }));

test('stopped while trials wait: they were never begun, their tickets are gone, and it goes on', (t) =>
  FaultBench.scripted(t, async (bench) => {
    await bench.script({ ...PANICS, 'compound-head': ['survive'] });
    const redis = await TestRedis.start(bench);
    const args = await bench.pair();
    const child = start(bench, args, redis.url);
    const { queue } = await waitingTickets(bench, redis);
    child.kill('SIGINT');
    t.is((await child).exitCode, 130);
    t.deepEqual(await bench.trials(), []);
    t.deepEqual(await queue.getRanges(['waiting', 'prioritized']), []);
    await TestWorker.start(bench, redis.url, 'w1');
    const { code, run } = await runOf(start(bench, args, redis.url, '--resume', await bench.runId()));
    t.is(code, 0);
    t.deepEqual(outcomes(run), SURVIVED);
    await bench.record('stopped', 'trials wait', 'none begun; clean when resumed');
  }));

test('a run with a label is served by workers that have it, and by no other', (t) =>
  FaultBench.scripted(t, async (bench) => {
    await bench.script({ ...PANICS, 'compound-head': ['survive'] });
    const redis = await TestRedis.start(bench);
    const plain = await TestWorker.start(bench, redis.url, 'w1');
    await plain.until(/waits at/);
    const args = await bench.pair();
    const nobody = await bench.command([
      ...[...args, '--queue', redis.url],
      ...['--label', 'big', '--worker-wait', '6'],
    ]);
    t.is(nobody.code, 3);
    t.regex(nobody.stderr, /no worker for tcg with the label big .*\[no-worker\]/);
    const big = await TestWorker.start(bench, redis.url, 'w2', { args: ['--labels', 'lab,big'] });
    const resume = ['--resume', await bench.runId()];
    const { code, run, stderr } = await runOf(start(bench, args, redis.url, '--label', 'big', ...resume));
    t.is(code, 0, stderr);
    t.deepEqual(outcomes(run), SURVIVED);
    t.regex(big.said, /compound-head .*: survived/);
    t.notRegex(plain.said, /trial/);
  }));

test('a Redis that is there and does not answer: a run that waits is stopped all the same, and so is a worker', (t) =>
  FaultBench.scripted(t, async (bench) => {
    await bench.script({ ...PANICS, 'compound-head': ['survive'] });
    const redis = await TestRedis.start(bench);
    const args = await bench.pair();
    const child = start(bench, args, redis.url);
    await waitingTickets(bench, redis);
    const worker = await TestWorker.start(bench, redis.url, 'w1', { args: ['--labels', 'other'] });
    await bench.until('phase', '', 60);
    redis.signal('SIGSTOP');
    t.teardown(async () => redis.signal('SIGCONT'));
    await new Promise((resolve) => setTimeout(resolve, 3000));
    child.kill('SIGINT');
    worker.child.kill('SIGTERM');
    t.is((await child).exitCode, 130);
    t.is((await worker.child).exitCode, 130);
    redis.signal('SIGCONT');
    await bench.record('Redis does not answer', 'trials wait', 'stopped in seconds');
  }));

test('what cannot be a queue is said in one line', (t) =>
  FaultBench.scripted(t, async (bench) => {
    await bench.script('survive');
    const args = await bench.pair();
    for (const [code, pattern, ...more] of [
      [2, /--queue: is no address of a Redis/, '--queue', 'http://127.0.0.1'],
      [2, /--queue: is no address of a Redis/, '--queue', 'nonsense'],
      [3, /--queue redis:\/\/127\.0\.0\.1:1: cannot be reached/, '--queue', 'redis://:pw@127.0.0.1:1'],
      [2, /--listen a b: is no address/, '--queue', 'redis://127.0.0.1:1', '--listen', 'a b'],
      [2, /is no label/, '--queue', 'redis://127.0.0.1:1', '--label', 'a/b'],
      [2, /--jobs: must be a whole number of at least 1, or auto/, '--jobs', 'many'],
      [2, /--worker-wait: must be/, '--queue', 'redis://127.0.0.1:1', '--worker-wait', '0'],
    ] as const) {
      const done = await bench.command([...args, ...more]);
      t.is(done.code, code, done.stderr);
      t.regex(done.stderr, pattern);
      t.notRegex(done.stderr, /:pw@/);
      t.deepEqual(await readdir(bench.results).catch(() => []), []);
    }
    const worker = await bench.query('worker', '--queue', 'redis://127.0.0.1:1');
    t.is(worker.code, 3);
    const redis = await TestRedis.start(bench);
    const busy = await bench.command([...args, '--queue', redis.url, '--listen', `127.0.0.1:${redis.port}`]);
    t.is(busy.code, 2, busy.stderr);
    t.regex(busy.stderr, /--listen 127\.0\.0\.1:\d+: .*EADDRINUSE/);
  }));

async function queueOf(redis: TestRedis): Promise<string> {
  for (let tries = 0; tries < 200; tries++) {
    const keys = (await redis.cli('keys', 'bull:*:id')).split('\n').filter(Boolean);
    const [, name] = /^bull:(.*):id$/.exec(keys[0] ?? '') ?? [];
    if (name !== undefined) return name;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error('no queue is there');
}
