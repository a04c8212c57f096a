import { mkdir, readdir, readFile, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { sha256OfFile } from '../../base/files.js';
import { findProgram } from '../../host/tools.js';
import { dumpSchema } from '../../outcome/dump-schema.js';
import { startLoopanic } from '../support/cli.js';
import { tempDir } from '../support/files.js';
import { runOf, TestRedis, TestWorker } from '../support/queue-bench.js';

// A worker that can make nothing itself (no apt, no mmdebstrap, an empty cache) gets every part from the run, boots, and brings back what a
// trial leaves: the same verdicts, readings and dump as on one machine.
test('a bare worker: kernel, image, modules, LUN and module come over HTTP; panic, dump and reading go back', async (t) => {
  t.timeout(300_000);
  const dir = await tempDir(t);
  const bin = join(dir, 'bin');
  await mkdir(bin);
  for (const name of ['qemu-system-x86_64', 'setpriv', 'cpio', 'cp', 'makedumpfile', 'find', 'sort', 'sh'])
    await symlink((await findProgram(name)) ?? '', join(bin, name));
  const redis = await TestRedis.start({ t, dir });
  const worker = await TestWorker.start({ t, dir }, redis.url, 'cache', { isBare: true, env: { PATH: bin } });
  await worker.until(/waits at/);
  const results = join(dir, 'results');
  const { code, run, stderr } = await runOf(
    startLoopanic([
      ...['matrix', 'repro', '--queue', redis.url, '--results', results, '--json'],
      ...['--accel', 'tcg', '--keep-dumps', 'all'],
    ]),
  );
  const reasons = run.cells.flatMap(({ trials }) => trials.map(({ reason }) => reason));
  t.is(code, 0, `${reasons.join('\n')}\n${stderr}`);
  t.deepEqual(
    run.cells.map(({ verdict, provenBy }) => `${verdict} by ${provenBy}`),
    ['panics by panic', 'clean by reading'],
  );
  t.regex(
    worker.said,
    /from its coordinator came .*the kernel, .*the image, .*the kernel's modules, the LUN, the module under test/,
  );
  const [name = ''] = await readdir(results);
  const trial = join(results, name, run.cells[0]?.trials[0]?.folder ?? '');
  const dump = dumpSchema.parse(JSON.parse(await readFile(join(trial, 'dump.json'), 'utf8')));
  t.true(dump.complete);
  t.is(dump.sha256, await sha256OfFile(join(trial, 'vmcore')));
  t.regex(await readFile(join(trial, 'vmcore-dmesg.txt'), 'latin1'), /usercopy: Kernel memory exposure/);
  t.deepEqual(await readdir(join(dir, 'cache/loopanic/tmp')), []);
});
