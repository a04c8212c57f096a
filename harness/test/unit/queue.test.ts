import { open, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { parseListen } from '../../queue/coordinator-server.js';
import { checkLabel } from '../../queue/protocol.js';
import { checkUrl, shownUrl } from '../../queue/redis.js';
import { describeSparse, sparseStream, writeSparse } from '../../queue/sparse.js';
import { makeReport } from '../../report/report.js';
import type { RunCell, RunDocument } from '../../results/run-schema.js';
import { jobsThatFit, parseJobs } from '../../run/jobs.js';
import { schedule } from '../../run/schedule.js';
import { Watchdog } from '../../trial/watchdog.js';
import { judgeInRun } from '../../verdict/judge-run.js';
import { tempDir } from '../support/files.js';
import { sampleRun } from '../support/sample-run.js';

test('a disk with holes comes over as it is, and short; what is cut or changed is refused', async (t) => {
  const dir = await tempDir(t);
  const [from, to] = [join(dir, 'from'), join(dir, 'to')];
  const file = await open(from, 'w');
  const size = 200 * 2 ** 20 + 4711;
  await file.truncate(size);
  await file.write(Buffer.from('begin'), 0, 5, 0);
  await file.write(Buffer.alloc(100_000, 7), 0, 100_000, 64 * 1024 * 3 - 50);
  await file.write(Buffer.from('end'), 0, 3, size - 3);
  await file.close();
  await writeSparse(sparseStream(from), to, 2 ** 30);
  t.true((await readFile(from)).equals(await readFile(to)));
  t.true((await stat(to)).blocks * 512 < 2 ** 20);
  const { bytes, sha256 } = await describeSparse(from);
  t.true(bytes < 500_000);
  t.is((await describeSparse(to)).sha256, sha256);
  const chunks: Buffer[] = [];
  for await (const chunk of sparseStream(from)) chunks.push(chunk);
  const whole = Buffer.concat(chunks);
  // In pieces of any size.
  async function* pieces(content: Buffer, step: number): AsyncGenerator<Buffer> {
    for (let at = 0; at < content.length; at += step) yield content.subarray(at, at + step);
  }
  await writeSparse(pieces(whole, 4099), join(dir, 'pieces'), 2 ** 30);
  t.is((await describeSparse(join(dir, 'pieces'))).sha256, sha256);
  const beyond = Buffer.from(whole);
  beyond.writeBigUInt64LE(BigInt(size), 12);
  for (const [name, content, most] of [
    ['empty', Buffer.alloc(0), 2 ** 30],
    ['cut', whole.subarray(0, whole.length - 1), 2 ** 30],
    ['beyond', beyond, 2 ** 30],
    ['large', whole, 2 ** 20],
  ] as const)
    await t.throwsAsync(writeSparse(pieces(content, 65536), join(dir, name), most), undefined, name);
});

test('schedule: what waits for nothing first, the others as soon as what they wait for is over', async (t) => {
  const order: string[] = [];
  const task = (name: string, after: number | null, ms: number) => ({
    after,
    run: async () => {
      order.push(name);
      await sleep(ms);
    },
  });
  await schedule([task('b', 2, 1), task('x', null, 60), task('a', null, 5), task('c', 0, 1)], 2);
  t.deepEqual(order, ['x', 'a', 'b', 'c']);
  order.length = 0;
  const failing = {
    after: null,
    run: async () => {
      await sleep(5);
      throw new Error('it fails');
    },
  };
  const failures: unknown[] = [];
  await t.throwsAsync(
    schedule([failing, task('runs', null, 40), task('never', 0, 1), task('late', 1, 1)], 2, failures),
    { message: 'it fails' },
  );
  t.deepEqual(order, ['runs']);
  t.is(failures.length, 1);
  await schedule([], 1);
});

test('schedule: ten thousand at once', async (t) => {
  let done = 0;
  const tasks = Array.from({ length: 10_000 }, (_, index) => ({
    after: index % 10 === 0 ? null : index - (index % 10),
    run: async () => {
      done++;
    },
  }));
  await schedule(tasks, Number.POSITIVE_INFINITY);
  t.is(done, 10_000);
});

test('addresses, labels and numbers of jobs', (t) => {
  t.deepEqual(parseListen('10.0.0.5'), { host: '10.0.0.5', port: 0 });
  t.deepEqual(parseListen('build-7.lab:8080'), { host: 'build-7.lab', port: 8080 });
  t.deepEqual(parseListen('[::1]:9'), { host: '::1', port: 9 });
  for (const bad of ['', ':80', 'a b', '10.0.0.5:', '10.0.0.5:99999', '::1', 'http://x'])
    t.throws(() => parseListen(bad), { message: /is no address/ }, bad);
  t.is(checkUrl('rediss://:pw@h:1/2'), 'rediss://:pw@h:1/2');
  for (const bad of ['h', 'http://h', 'redis://', 'redis:'])
    t.throws(() => checkUrl(bad), { message: /no address of a Redis/ }, bad);
  t.false(shownUrl('redis://me:s3cret@h').includes('s3cret'));
  t.is(checkLabel('kvm'), 'kvm');
  for (const bad of ['', 'A', 'a/b', '-', 'x'.repeat(40)]) t.throws(() => checkLabel(bad), undefined, bad);
  t.is(parseJobs('auto'), 'auto');
  t.is(parseJobs('3'), 3);
  for (const bad of ['0', '-1', '1.5', '', 'all']) t.throws(() => parseJobs(bad), undefined, bad);
  t.is(jobsThatFit({ cpus: 1e6, memoryMiB: 1 }), 1);
  t.is(jobsThatFit({ cpus: 1e-3, memoryMiB: 1e9 }), 1);
  t.true(jobsThatFit({ cpus: 1e-3, memoryMiB: 1 }) > 1);
});

test('a guest whose host is crowded has more time', async (t) => {
  const dir = await tempDir(t);
  const silentAfter = (crowding: number): Promise<unknown> => {
    let now = 0;
    return new Promise((resolve) => {
      const limits = { silenceSeconds: 2, stallSeconds: 60, memoryMiB: 64 };
      const watchdog = new Watchdog(
        limits,
        dir,
        (end) => {
          watchdog.stop();
          resolve(end);
        },
        // Each look is most of a second later than the one before.
        () => {
          now += 100;
          return now;
        },
        () => crowding,
      );
      watchdog.start();
    });
  };
  t.deepEqual(await silentAfter(0.5), { why: 'silent', seconds: 2 });
  t.deepEqual(await silentAfter(3), { why: 'silent', seconds: 6 });
});

const sample = (): { run: RunDocument; control: RunCell; fix: RunCell } => {
  const run = sampleRun();
  const [control, fix] = run.cells as [RunCell, RunCell];
  return { run, control, fix };
};

test('a control on another accelerator says nothing of a cell by odds', (t) => {
  const { run, control, fix } = sample();
  t.is(judgeInRun(run, fix).provenBy, 'statistics');
  for (const trial of control.trials) trial.accel = 'kvm';
  const apart = judgeInRun(run, fix);
  t.is(apart.provenBy, 'survival');
  t.is(apart.statistics.missChance, null);
  t.regex(apart.reason, /differs from its positive control in the accelerator \(tcg, not kvm\)/);
});

test('different QEMUs are told, and hosts are named in the report', async (t) => {
  const { run, control, fix } = sample();
  const on = (cell: RunCell, name: string, qemu: string): void => {
    for (const trial of cell.trials) trial.host = { name, qemu };
  };
  on(control, 'rack-1', 'QEMU 7.2');
  on(fix, 'rack-2', 'QEMU 7.2');
  t.deepEqual(
    judgeInRun(run, fix).warnings.filter((text) => text.includes('QEMU')),
    [],
  );
  on(fix, 'rack-2', 'QEMU 8.0');
  t.true(
    judgeInRun(run, fix).warnings.includes(
      "its boots and its control's ran under different QEMUs: QEMU 7.2; QEMU 8.0",
    ),
  );
  const html = await makeReport(run, 'html', '/nowhere', '/nowhere');
  t.regex(html, /trials on \d hosts/);
  t.regex(html, /<li>rack-1, tcg; QEMU 7\.2: 5 trials<\/li>/);
  t.regex(html, /<th>host<\/th>/);
  t.notRegex(await makeReport(sampleRun(), 'html', '/nowhere', '/nowhere'), /<th>host<\/th>/);
});
