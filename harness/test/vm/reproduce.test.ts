import { copyFile, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import { isAlive } from '../../base/files.js';
import { presentKernel } from '../../kernel/store.js';
import { runSchema } from '../../results/run-schema.js';
import { loopanic, startLoopanic } from '../support/cli.js';
import { tempDir } from '../support/files.js';

const run = async (results: string, ...args: string[]) => {
  const result = await loopanic(['run', 'xfs-loopback', ...args, '--json', '--results', results], {
    timeoutSeconds: 280,
  });
  // An error is a document, too.
  const document = result.stdout === '' ? {} : JSON.parse(result.stdout);
  return { ...result, document: 'run' in document ? runSchema.parse(document) : undefined };
};

/** QEMUs whose command line names this folder. */
async function guestsOf(folder: string): Promise<number[]> {
  const { stdout } = await execa('pgrep', ['-f', `^\\S*qemu-system-x86_64 .*${folder}`], { reject: false });
  return stdout.split('\n').filter(Boolean).map(Number);
}

async function until(what: () => Promise<boolean>, seconds: number): Promise<boolean> {
  for (const end = performance.now() + seconds * 1000; performance.now() < end; ) {
    if (await what()) return true;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return what();
}

test.serial('the fix reverted: panics, with the sought signature and everything read back', async (t) => {
  const results = await tempDir(t);
  const { code, document, stderr } = await run(results, '--module', 'unpatched', '--dump', 'none');
  t.is(code, 0, stderr);
  const cell = document?.cells[0];
  const trial = cell?.trials[0];
  t.is(cell?.verdict, 'panics');
  t.like(trial, { outcome: 'reproduced', corrupted: false, phase: 'workload' });
  t.like(trial?.signature, {
    kind: 'usercopy',
    direction: 'exposure',
    comm: 'tgtd',
    bug: { file: 'mm/usercopy.c', line: 101 },
    kernel: cell?.kernelInfo?.release,
  });
  t.true(Number.isInteger(trial?.signature?.objects) && (trial?.signature?.objects ?? 0) >= 2);
  t.true(trial?.signature?.stack.includes('tcp_recvmsg'));
  t.is(trial?.guest?.module.buildId, cell?.moduleInfo?.buildId);
  t.is(trial?.guest?.module.srcversion, cell?.moduleInfo?.srcversion);
  t.is(trial?.guest?.slabs['kmalloc-512']?.order, 3);
  t.is(trial?.guest?.transport.immediateData, 'Yes');
  // The panicked kernel's own trace.
  t.like(trial?.gate, { probe: 'tcp_sendpage', lost: 0, cutShort: true }, trial?.gateWhy ?? '');
  t.true((trial?.gate?.leaked ?? 0) >= 2);
  // Two calls that the stack joined, or one, if the block layer had done so.
  const joined = trial?.gate?.joined ?? [];
  t.true(joined.reduce((sum, { size }) => sum + size, 0) >= 1024, JSON.stringify(trial?.gate));
  t.is(new Set(joined.map(({ page }) => page)).size, 1);

  const folder = join(results, document?.run ?? '', trial?.folder ?? '');
  const serial = (await readFile(join(folder, 'serial.log'), 'latin1')).split('\n');
  for (const { file, line, text } of trial?.evidence ?? []) {
    t.is(file, 'serial.log');
    t.true(serial[line - 1]?.includes(text), `${line}: ${text}`);
  }
  t.deepEqual((await readdir(folder)).sort(), [
    'guest.log',
    'outcome.json',
    'plan.json',
    'qemu.log',
    'serial.log',
  ]);
  for (const name of await readdir(folder)) t.is((await stat(join(folder, name))).mode & 0o777, 0o600, name);
  t.is((await stat(folder)).mode & 0o777, 0o700);
});

test.serial(
  'the half-fix is caught on slabs with tail pages; a prebuilt .ko given by path works the same',
  async (t) => {
    const results = await tempDir(t);
    const built = await loopanic(['module', 'build', 'pageslab', '--json'], { timeoutSeconds: 120 });
    const ko = join(await tempDir(t), 'libiscsi_tcp.ko');
    await copyFile(JSON.parse(built.stdout)[0].file, ko);
    const { code, document, stderr } = await run(results, '--module', ko, '--dump', 'none');
    t.is(code, 0, stderr);
    t.regex(document?.cells[0]?.module ?? '', /^libiscsi_tcp\.ko@[0-9a-f]{8}$/);
    t.is(document?.cells[0]?.verdict, 'panics');
  },
);

test.serial('the right module: clean, against proof of work', async (t) => {
  const results = await tempDir(t);
  const { code, document, stderr } = await run(results, '--module', 'stock');
  t.is(code, 0, stderr);
  const cell = document?.cells[0];
  t.is(cell?.verdict, 'clean');
  t.deepEqual(cell?.warnings, [
    'no positive control was run: nothing shows that this guest would have panicked',
  ]);
  const trial = cell?.trials[0];
  t.like(trial, { outcome: 'survived', signature: null, phase: 'done' });
  t.is(trial?.workload?.cycles, 6);
  t.true((trial?.workload?.mergedTwoSectorWrites ?? 0) >= 640);
  t.true((trial?.workload?.bytesWritten ?? 0) > 1e6);
  t.like(trial?.gate, { probe: 'tcp_sendpage', lost: 0, leaked: 0, cutShort: false }, trial?.gateWhy ?? '');
  t.true((trial?.gate?.slabSegments ?? 0) >= 1500 && (trial?.gate?.otherSegments ?? 0) > 0);
});

test.serial('a .ko of another kernel is refused before anything boots', async (t) => {
  const kernel = await presentKernel('debian-6.1');
  const built = await loopanic(['module', 'build', 'unpatched', '--json'], { timeoutSeconds: 120 });
  const content = await readFile(JSON.parse(built.stdout)[0].file);
  // Not the release: where both have modversions it does not count.
  const at = content.indexOf(' SMP preempt', content.indexOf(`vermagic=${kernel?.release}`));
  t.true(at > 0);
  content.write(' UMP', at);
  const ko = join(await tempDir(t), 'libiscsi_tcp.ko');
  await writeFile(ko, content);
  const results = await tempDir(t);
  const refused = await loopanic(['run', 'xfs-loopback', '--module', ko, '--results', results]);
  t.is(refused.code, 2);
  t.regex(
    refused.stderr,
    /^loopanic: .*libiscsi_tcp\.ko: built for another kernel: its vermagic is "6\.1\.0-\S+ UMP .*", debian-6\.1 needs "6\.1\.0-\S+ SMP /,
  );
  t.deepEqual(await readdir(results), []);
});

test.serial('a shell in the guest: everything mounted, the workload waits for its switch', async (t) => {
  const results = await tempDir(t);
  const input = 'uname -r\ngrep " /mnt " /proc/mounts\nexit\n';
  const result = await loopanic(['run', 'xfs-loopback', '--shell', '--results', results], {
    input,
    timeoutSeconds: 120,
  });
  t.regex(result.stdout, /^6\.1\.0-\d+-amd64$/m);
  t.regex(result.stdout, /^\/dev\/sda \/mnt xfs /m);
  t.is(result.code, 3, 'a guest that was left before its workload gives no verdict');
});

test.serial(
  'kill -9 of the harness takes its guest along, and the next command says nothing strange',
  async (t) => {
    const results = await tempDir(t);
    const child = startLoopanic(['run', 'xfs-loopback', '--module', 'unpatched', '--results', results]);
    t.true(await until(async () => (await guestsOf(results)).length > 0, 30), 'a guest is up');
    const [pid = 0] = await guestsOf(results);
    // Its system calls are filtered as soon as it runs, and it has no privilege but to read its user's files.
    const status = async (): Promise<string> => readFile(`/proc/${pid}/status`, 'utf8');
    t.true(await until(async () => /^Seccomp:\t2$/m.test(await status()), 10), await status());
    t.regex(await status(), /^NoNewPrivs:\t1$/m);
    t.regex(await status(), /^CapEff:\t0+2$/m);
    child.kill('SIGKILL');
    await child;
    t.true(await until(async () => !isAlive(pid), 1), 'no QEMU is left a second later');
    const clean = await loopanic(['clean', '--json']);
    t.is(clean.code, 0, clean.stderr);
    t.is(clean.stderr, '');
  },
);

test.serial('Ctrl-C ends the guest, saves what is known, and exits 130', async (t) => {
  const results = await tempDir(t);
  const child = startLoopanic(['run', 'xfs-loopback', '--module', 'stock', '--results', results]);
  t.true(await until(async () => (await guestsOf(results)).length > 0, 30), 'a guest is up');
  child.kill('SIGINT');
  const { exitCode } = await child;
  t.is(exitCode, 130);
  t.deepEqual(await guestsOf(results), []);
  const [id = ''] = await readdir(results);
  const document = runSchema.parse(JSON.parse(await readFile(join(results, id, 'run.json'), 'utf8')));
  t.true(document.interrupted);
  t.is(document.cells[0]?.verdict, 'inconclusive');
  t.like(document.cells[0]?.trials[0], { outcome: 'infra-error', interrupted: true });
});
