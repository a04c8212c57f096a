import { open, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { trialEndSchema } from '../../outcome/decide.js';
import { parseListen } from '../../queue/coordinator-server.js';
import { planSchema } from '../../queue/plan-schema.js';
import { checkLabel, partsSchema } from '../../queue/protocol.js';
import { readUrl, shownUrl } from '../../queue/redis.js';
import { describeSparse, sparseStream, writeSparse } from '../../queue/sparse.js';
import { makeReport } from '../../report/report.js';
import type { RunCell, RunDocument } from '../../results/run-schema.js';
import { jobsThatFit, parseJobs } from '../../run/jobs.js';
import { schedule } from '../../run/schedule.js';
import { loadScenario } from '../../scenario/load-scenario.js';
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

test('addresses, labels and numbers of jobs', async (t) => {
  t.deepEqual(parseListen('10.0.0.5'), { host: '10.0.0.5', port: 0 });
  t.deepEqual(parseListen('build-7.lab:8080'), { host: 'build-7.lab', port: 8080 });
  t.deepEqual(parseListen('[::1]:9'), { host: '::1', port: 9 });
  for (const bad of ['', ':80', 'a b', '10.0.0.5:', '10.0.0.5:99999', '::1', 'http://x', '0', '8080'])
    t.throws(() => parseListen(bad), { message: /is no address/ }, bad);
  t.is(await readUrl('rediss://:pw@h:1/2'), 'rediss://:pw@h:1/2');
  const file = join(await tempDir(t), 'queue');
  await writeFile(file, 'redis://:p%25w@h\n');
  t.is(await readUrl(`@${file}`), 'redis://:p%25w@h');
  for (const bad of ['h', 'http://h', 'redis://', 'redis:', 'redis://h/0?password=pw', 'redis://:p%w@h'])
    await t.throwsAsync(readUrl(bad), { message: /no address of a Redis/ }, bad);
  await t.throwsAsync(readUrl('@/nowhere'), { message: /nowhere: cannot be read/ });
  t.is(shownUrl('redis://me:s3cret@h:7/1'), 'redis://h:7/1');
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

test('a plan from elsewhere says what a scenario may say, and names no place outside the guest', async (t) => {
  const { scenario } = await loadScenario('xfs-loopback');
  const plan = {
    ...{
      kernel: 'debian-6.1',
      module: 'stock',
      trial: 1,
      cellKey: 'k',
      seed: 1,
      token: '0123abcd',
      scenario,
    },
    moduleInfo: {
      vermagic: 'x',
      srcversion: null,
      buildId: null,
      sha256: '',
      source: [],
      sameCodeAs: null,
      comparedWith: [],
    },
    ...{ accel: 'tcg', dump: 'kdump', mkfs: ['-s', 'size=512'], crashkernelMiB: 192, rootDisk: false },
    profile: {
      hardenedUsercopyBuilt: true,
      freelistRandom: true,
      modules: ['xfs'],
      optionalModules: ['crc32c-intel'],
    },
    parts: {
      kernel: 'a',
      image: 'b',
      modules: 'c.cpio',
      capture: null,
      lun: 'd.img',
      scripts: 'e',
      module: 'f',
    },
    modulePath: 'lib/modules/6.1.0-56-amd64/kernel/drivers/scsi/libiscsi_tcp.ko',
    expected: {
      ...{
        hardenedUsercopy: 'on',
        release: '6.1',
        module: { srcversion: null, buildId: null },
        filesystem: 'xfs',
      },
      ...{
        sectorSize: 512,
        blockSize: 4096,
        nomerges: 0,
        transport: {},
        slubMinOrder: null,
        slubMaxOrder: null,
      },
      ...{
        redZone: false,
        onlineCpus: 1,
        loopback: true,
        allocationGroups: 128,
        writebackCentiseconds: null,
      },
      ...{ cycles: 6, proof: [] },
    },
  };
  const read = planSchema.parse(JSON.parse(JSON.stringify(plan)));
  t.deepEqual(read.scenario, scenario);
  for (const [what, change] of [
    ['a place above', { modulePath: 'lib/modules/6.1/kernel/../../../../root/.ssh/authorized_keys.ko' }],
    ['a place of its own', { modulePath: '/root/.ssh/authorized_keys' }],
    ['another line', { modulePath: 'lib/modules/6.1/kernel/x.ko\n/../../y' }],
    ['a key that is a path', { parts: { ...plan.parts, lun: '../../x' } }],
    ['a kernel that is a path', { kernel: '../x' }],
    [
      'a number that is none',
      { scenario: { ...scenario, limits: { silenceSeconds: null, stallSeconds: 1 } } },
    ],
    ['options for QEMU', { scenario: { ...scenario, vm: { ...scenario.vm, cpus: '1,x=y' } } }],
    [
      'words for mkfs',
      { scenario: { ...scenario, filesystem: { ...scenario.filesystem, sectorSize: '512 -d' } } },
    ],
    ['a module with an option', { profile: { ...plan.profile, modules: ['-C', '/tmp/x y'] } }],
  ] as const)
    t.false(planSchema.safeParse({ ...plan, ...change }).success, what);
  const parts = (name: string) =>
    partsSchema.shape.workload.element.safeParse({
      sha256: 'a'.repeat(64),
      bytes: 1,
      isExecutable: true,
      name,
    });
  for (const good of ['run', 'lib/pair.pl', '.hidden', '..x/y']) t.true(parts(good).success, good);
  for (const bad of ['', '/x', '../x', 'a/../b', 'a/..', '..', '.', 'a//b', 'a\n/../../x', 'a/', 'x\0'])
    t.false(parts(bad).success, JSON.stringify(bad));
  for (const end of [
    { why: 'finnished' },
    { why: 'left', detail: {} },
    { why: 'finished', lunBytesWritten: 'x' },
    {},
  ])
    t.false(trialEndSchema.safeParse(end).success, JSON.stringify(end));
});
