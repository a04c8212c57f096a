import { copyFile, cp, mkdir, open, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { execa } from 'execa';
import { packageRoot, scenariosDir } from '../../base/paths.js';
import { silentProgress } from '../../base/progress.js';
import { type Analysis, analysisSchema } from '../../forensics/analysis-schema.js';
import { ensureBuildTree } from '../../kernel/build-tree.js';
import { ensureKernel } from '../../kernel/fetch.js';
import { dumpSchema } from '../../outcome/dump-schema.js';
import { type RunDocument, runSchema } from '../../results/run-schema.js';
import { loopanic } from '../support/cli.js';
import { tempDir } from '../support/files.js';

interface Crashed {
  document: RunDocument;
  /** The trial's folder. */
  dir: string;
}

async function crash(t: ExecutionContext, ...args: string[]): Promise<Crashed> {
  const results = await tempDir(t);
  const result = await loopanic(['run', ...args, '--json', '--results', results], { timeoutSeconds: 280 });
  t.not(result.stdout, '', result.stderr);
  const document = runSchema.parse(JSON.parse(result.stdout));
  return { document, dir: join(results, document.run, document.cells[0]?.trials[0]?.folder ?? '') };
}

const readDump = async (dir: string) =>
  dumpSchema.parse(JSON.parse(await readFile(join(dir, 'dump.json'), 'utf8')));
const readAnalysis = async (dir: string): Promise<Analysis> =>
  analysisSchema.parse(JSON.parse(await readFile(join(dir, 'analysis.json'), 'utf8')));

/** Every fact of the article is there, and every check holds. */
async function provesIt(t: ExecutionContext, { document, dir }: Crashed): Promise<Analysis> {
  const analysis = await readAnalysis(dir);
  t.is(analysis.problem, null);
  t.deepEqual(
    analysis.checks.filter(({ holds }) => !holds),
    [],
  );
  t.is(analysis.conclusion.sought, 'yes');
  const { facts } = analysis;
  const trial = document.cells[0]?.trials[0];
  t.like(facts.task, { comm: 'tgtd', pid: trial?.signature?.pid, cpu: trial?.signature?.cpu });
  t.is(facts.module?.srcversion, trial?.guest?.module.srcversion);
  t.like(facts.object, {
    cache: trial?.signature?.object,
    objectSize: trial?.signature?.objectSize,
    allocated: true,
  });
  t.is(facts.fragment?.page, facts.object?.page);
  t.is(facts.skb?.headLen, (facts.skb?.len ?? 0) - (facts.skb?.dataLen ?? 0));
  t.is(facts.objects.length, trial?.signature?.objects ?? 0);
  t.like(facts.socket, { local: '127.0.0.1', localPort: 3260, remote: '127.0.0.1' });
  t.regex(facts.processes?.initiator?.comm ?? '', /^iscsi_q_\d+$/);
  const text = await readFile(join(dir, 'analysis.md'), 'utf8');
  for (const { command } of [
    { command: 'crash> bt' },
    { command: 'crash> kmem ' },
    { command: 'crash> rd -8 ' },
  ])
    t.true(text.includes(command), command);
  return analysis;
}

test.before('debug info', async (t) => {
  t.timeout(10 * 60_000);
  const result = await loopanic(['kernel', 'debuginfo', 'debian-6.1', '--json'], { timeoutSeconds: 590 });
  t.is(result.code, 0, result.stderr);
});

test.serial(
  'kdump on the second of two CPUs; a tail page; the same facts by hand; damaged and foreign dumps',
  async (t) => {
    t.timeout(10 * 60_000);
    // Only tail pages can make this module panic.
    const crashed = await crash(t, 'xfs-loopback-smp', '--module', 'pageslab');
    const { dir, document } = crashed;
    t.is(document.cells[0]?.verdict, 'panics');
    t.is(document.cells[0]?.trials[0]?.signature?.cpu, 1);
    const dump = await readDump(dir);
    t.like(dump, {
      method: 'kdump',
      complete: true,
      kept: true,
      readable: { makedumpfile: true, crash: true },
    });
    const vmcore = join(dir, 'vmcore');
    t.is((await stat(vmcore)).size, dump.bytes);
    t.is((await stat(vmcore)).mode & 0o777, 0o600);
    t.true(
      (await readFile(join(dir, 'vmcore-dmesg.txt'), 'latin1')).includes('usercopy: Kernel memory exposure'),
    );
    const analysis = await provesIt(t, crashed);
    t.is(analysis.facts.object?.pageIs, 'tail');

    const { vmlinux } = JSON.parse((await loopanic(['kernel', 'debuginfo', 'debian-6.1', '--json'])).stdout);
    const analyze = (...args: string[]) => loopanic(['analyze', ...args, '--json'], { timeoutSeconds: 200 });
    const byHand = await analyze(vmcore, '--vmlinux', vmlinux);
    t.is(byHand.code, 0, byHand.stderr);
    t.deepEqual(JSON.parse(byHand.stdout).facts, analysis.facts);

    const cut = join(dir, 'cut');
    await copyFile(vmcore, cut);
    const file = await open(cut, 'r+');
    await file.truncate(Math.floor(dump.bytes / 3)).finally(() => file.close());
    const damaged = await analyze(cut, '--vmlinux', vmlinux);
    t.is(damaged.code, 3, damaged.stdout);
    t.not(JSON.parse(damaged.stdout).conclusion.sought, 'yes');
    t.regex(damaged.stderr, /loopanic: the analysis is incomplete: \S+/);

    const foreign = await analyze(vmcore, '--vmlinux', process.execPath);
    t.is(foreign.code, 3);
    t.is(JSON.parse(foreign.stdout).conclusion.sought, 'not-provable');
    const missing = await analyze(vmcore, '--vmlinux', './none');
    t.is(missing.code, 2);
    t.regex(missing.stderr, /^loopanic: --vmlinux \.\/none: no such file \[no-such-file\]$/);
  },
);

test.serial(
  'a crash kernel that fails: QEMU dumps instead, and that dump proves the same; a head page',
  async (t) => {
    // Slabs of one page, so that the object lies in a head page; and less memory than the crash kernel needs to come up.
    const text = await readFile(join(scenariosDir, 'xfs-loopback.yaml'), 'utf8');
    const scenario = join(await tempDir(t), 'small.yaml');
    const small = text
      .replace(/ {2}slubMinOrder.*\n/, '')
      .replace('memoryMiB: 1024', 'memoryMiB: 1024\n  crashkernelMiB: 80');
    await writeFile(scenario, small);
    const crashed = await crash(t, scenario, '--module', 'unpatched');
    const dump = await readDump(crashed.dir);
    t.like(dump, { method: 'qmp', complete: true, readable: { makedumpfile: true, crash: true } });
    t.like(dump.ladder[0], { method: 'kdump', ok: false });
    t.regex(dump.ladder[0]?.reason ?? '', /the crash kernel gave up: Kernel panic - not syncing/);
    const analysis = await provesIt(t, crashed);
    t.is(analysis.facts.object?.pageIs, 'head');
  },
);

test.serial('a panic of another kind is captured, and not taken for the sought one', async (t) => {
  const { document, dir } = await crash(t, 'sysrq-crash', '--keep-dumps', 'none');
  t.is(document.cells[0]?.verdict, 'inconclusive');
  t.is(document.cells[0]?.trials[0]?.outcome, 'other-crash');
  t.like(await readDump(dir), { method: 'kdump', complete: true, kept: false });
  await t.throwsAsync(stat(join(dir, 'vmcore')), { code: 'ENOENT' });
  const analysis = await readAnalysis(dir);
  t.is(analysis.conclusion.sought, 'no', analysis.problem ?? '');
});

test.serial('a usercopy panic with another cache and another reader is not the sought one', async (t) => {
  const scenarios = await tempDir(t);
  const workload = join(scenarios, 'workloads/decoy');
  await mkdir(workload, { recursive: true });
  const kernel = await ensureKernel('debian-6.1', silentProgress);
  const { headers } = await ensureBuildTree(kernel, silentProgress);
  const source = join(scenarios, 'source');
  await cp(join(packageRoot, 'harness/test/support/usercopy-decoy'), source, { recursive: true });
  await writeFile(join(source, 'Makefile'), 'obj-m := usercopy_decoy.o\n');
  await execa('make', ['-C', headers, `M=${source}`, 'modules']);
  await copyFile(join(source, 'usercopy_decoy.ko'), join(workload, 'usercopy_decoy.ko'));
  await rm(source, { recursive: true });
  const steps = [
    '#!/bin/sh',
    '. /loopanic/lib.sh',
    'PHASE=workload',
    'need /sbin/insmod /loopanic/workload/usercopy_decoy.ko',
    'dd if=/proc/usercopy_decoy of=/dev/null bs=1024 count=1',
    'die "the kernel did not crash"',
  ];
  await writeFile(join(workload, 'run'), `${steps.join('\n')}\n`, { mode: 0o755 });
  const scenario = join(scenarios, 'decoy.yaml');
  await writeFile(scenario, 'summary: decoy\nworkload: {name: decoy, cycles: 1, minMergedPerCycle: 0}\n');

  const { document, dir } = await crash(t, scenario);
  const trial = document.cells[0]?.trials[0];
  t.is(trial?.outcome, 'other-crash');
  t.like(trial?.signature, { object: 'decoy-512', length: 1024, objectSize: null });
  t.regex(trial?.reason ?? '', /decoy-512 is not a general-purpose kmalloc cache/);
  t.true((await readDump(dir)).complete);
  t.is((await readAnalysis(dir)).conclusion.sought, 'no');
});
