import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import { parse } from 'yaml';
import { processSpace } from '../../base/files.js';
import { lockRun } from '../../results/lock.js';
import { pruneRuns } from '../../results/retention.js';
import { bisectKernels, compareReleases, stepConfidence, stepsOf } from '../../run/bisect.js';
import { loopanic } from '../support/cli.js';
import { tempDir } from '../support/files.js';

test('retention: the oldest finished runs of the matrix go; what may go on, and what others made, stays', async (t) => {
  const dir = await tempDir(t);
  const run = async (name: string, more: object): Promise<void> => {
    await mkdir(join(dir, name));
    const document = {
      command: 'matrix',
      matrix: { name: 'nightly' },
      interrupted: false,
      finishedAt: null,
      cells: [{ trials: [{ interrupted: false }] }],
      ...more,
    };
    await writeFile(join(dir, name, 'run.json'), JSON.stringify(document, null, 2));
  };
  // Begun first, resumed and ended last.
  await run('20260101T000000Z-aaaaaa', { finishedAt: '2026-01-09T00:10:00Z' });
  await run('20260102T000000Z-aaaaaa', {});
  await run('20260103T000000Z-aaaaaa', { finishedAt: '2026-01-03T00:10:00Z', interrupted: true });
  await run('20260104T000000Z-aaaaaa', { finishedAt: '2026-01-04T00:10:00Z' });
  await run('20260105T000000Z-aaaaaa', { finishedAt: '2026-01-05T00:10:00Z' });
  await run('20260106T000000Z-aaaaaa', {
    finishedAt: '2026-01-01T00:10:00Z',
    command: 'validate',
    matrix: null,
  });
  await run('20260107T000000Z-aaaaaa', { finishedAt: '2026-01-01T00:10:00Z', matrix: { name: 'article' } });
  await run('20260108T000000Z-aaaaaa', { finishedAt: '2026-01-01T00:10:00Z' });
  await run('mine', { finishedAt: '2026-01-01T00:10:00Z' });
  await run('20260109T000000Z-aaaaaa', {
    finishedAt: '2026-01-01T00:10:00Z',
    matrix: { name: 'nightly', shard: { part: 1, of: 2, whole: 'w' } },
  });
  await mkdir(join(dir, '20260101T000000Z-bbbbbb'));
  await using _lock = await lockRun(join(dir, '20260108T000000Z-aaaaaa'));
  const of = { matrix: 'nightly', current: '20260101T000000Z-aaaaaa' };
  t.deepEqual(await pruneRuns(dir, 2, of), ['20260104T000000Z-aaaaaa']);
  t.deepEqual(await pruneRuns(dir, 2, of), []);
  t.deepEqual(await pruneRuns(dir, 1, { ...of, current: '20260105T000000Z-aaaaaa' }), [
    '20260101T000000Z-aaaaaa',
  ]);
  t.is((await readdir(dir)).length, 9);
});

test('a run belongs to one process: refused while it lives, taken over when it is gone', async (t) => {
  const dir = await tempDir(t);
  const lock = await lockRun(dir);
  await t.throwsAsync(lockRun(dir), { message: /another loopanic is at this run/ });
  await lock[Symbol.asyncDispose]();
  await (await lockRun(dir))[Symbol.asyncDispose]();
  const child = execa('true');
  await child;
  const left = (owner: object) =>
    writeFile(join(dir, '.lock'), JSON.stringify({ ...processSpace(), pid: process.pid, ...owner }));
  for (const gone of [{ pid: child.pid }, { boot: 'the last one' }]) {
    await left(gone);
    await (await lockRun(dir))[Symbol.asyncDispose]();
  }
  await left({ host: 'elsewhere', pid: child.pid });
  await t.throwsAsync(lockRun(dir), { message: /remove .*\.lock/ });
  t.deepEqual(await readdir(dir), ['.lock']);
});

test('nightly-unit: commands that exist, times that are times', async (t) => {
  const unit = await loopanic(['nightly-unit', '--at', '04:05', '--json']);
  t.is(unit.code, 0, unit.stderr);
  const { service, timer, cron } = JSON.parse(unit.stdout);
  const command = /^ExecStart=(.*)$/m.exec(service)?.[1]?.split(' ') ?? [];
  t.is(command[0], process.execPath);
  const listed = await loopanic([...command.slice(2), '--list', '--kernel', 'debian-6.1']);
  t.is(listed.code, 0, listed.stderr);
  t.regex(timer, /^OnCalendar=\*-\*-\* 04:05:00$/m);
  t.regex(cron, /^5 4 \* \* \* (env .*? )?\//m);
  t.is((await loopanic(['nightly-unit', '--at', '25:00'])).code, 2);
  for (const service of ['github', 'gitlab']) {
    const { code, stdout } = await loopanic(['nightly-unit', '--for', service]);
    t.is(code, 0);
    t.regex(
      JSON.stringify(parse(stdout)),
      /npx loopanic matrix scenarios\/nightly\.matrix\.yaml --confidence 0\.99 --trials 5/,
    );
  }
});

test('nightly-unit: several machines share a night, and one judges what they ran', async (t) => {
  const job = async (service: string) => {
    const { code, stdout, stderr } = await loopanic(['nightly-unit', '--for', service, '--shards', '3']);
    t.is(code, 0, stderr);
    t.regex(stdout, /npx loopanic merge /);
    return parse(stdout);
  };
  const github = await job('github');
  t.deepEqual(github.jobs.matrix.strategy.matrix.shard, [1, 2, 3]);
  t.regex(JSON.stringify(github.jobs.matrix.steps), /--shard \$\{\{ matrix\.shard \}\}\/3 /);
  t.is(github.jobs.report.needs, 'matrix');
  const gitlab = await job('gitlab');
  t.is(gitlab['loopanic-matrix'].parallel, 3);
  t.regex(JSON.stringify(gitlab['loopanic-matrix'].script), /--shard .*\$CI_NODE_INDEX\/\$CI_NODE_TOTAL/);
  t.deepEqual(gitlab['loopanic-report'].needs, ['loopanic-matrix']);
  t.is((await loopanic(['nightly-unit', '--shards', '2'])).code, 2);
});

test('nightly-unit: odd names reach the command whole, and a file that is no matrix is refused', async (t) => {
  const dir = await tempDir(t);
  const file = join(dir, 'odd $HOME #1 `x` %s it\'s: "q".matrix.yaml');
  await writeFile(file, 'kernels: all\nmodules: [stock]\nscenarios: [xfs-loopback]\n');
  const { stdout } = await loopanic(['nightly-unit', file, '--json'], {
    env: { XDG_CACHE_HOME: join(dir, 'a b') },
  });
  const { service, cron } = JSON.parse(stdout);
  const line = cron
    .split('\n')[1]
    .replace(/^30 2 \* \* \* /, '')
    .replaceAll('\\%', '%');
  const words = await execa('sh', ['-c', `set -- ${line}; printf '%s\\n' "$@"`]);
  t.true(words.stdout.split('\n').includes(file), words.stdout);
  t.true(words.stdout.split('\n').includes(`XDG_CACHE_HOME=${join(dir, 'a b')}`));
  t.true(service.includes(`Environment="XDG_CACHE_HOME=${join(dir, 'a b')}"`));
  t.regex(service, /odd \$\$HOME #1 `x` %%s it's: \\"q\\"\.matrix\.yaml"/);
  for (const name of ['github', 'gitlab']) {
    const { stdout: job } = await loopanic(['nightly-unit', file, '--for', name]);
    parse(job);
    const line = job.split('\n').find((text) => text.includes('npx loopanic matrix')) ?? '';
    const told = await execa('sh', ['-c', `npx() { printf '%s\\n' "$3"; }; ${line.replace(/>.*$/, '')}`]);
    t.is(told.stdout, file);
  }
  await writeFile(file, 'kernels: all\nmodule: [stock]\n');
  const wrong = await loopanic(['nightly-unit', file]);
  t.is(wrong.code, 2);
  t.regex(wrong.stderr, /:2: module: unknown key/);
});

test('bisect: bad ends are bad input, and git is told what it understands', async (t) => {
  const refused = async (pattern: RegExp, ...words: string[]): Promise<void> => {
    const { code, stderr } = await loopanic(['bisect', ...words]);
    t.is(code, 2, stderr);
    t.regex(stderr, pattern);
  };
  await refused(/unknown kernel nope/, '--good', 'debian-6.1', '--bad', 'nope');
  const pair = ['--good', 'debian-6.1', '--bad', 'debian-5.10'];
  await refused(/unknown module nonsense/, ...pair, '--module', 'nonsense');
  await refused(/unknown scenario nonsense/, ...pair, '--scenario', 'nonsense');
  await refused(
    /--bad debian-5\.10: is not one of --kernels: debian-6\.1/,
    ...pair,
    '--kernels',
    'debian-6.1',
  );
  await refused(/the same kernel/, '--good', 'debian-6.1', '--bad', 'debian-6.1');
  // Would be wrong at every commit: ends the bisection.
  t.is((await loopanic(['run', 'nope', '--bisect'])).code, 128);
  // One commit's trouble: passed over.
  t.is((await loopanic(['run', 'xfs-loopback', '--bisect', '--module', '/nope/libiscsi_tcp.ko'])).code, 125);
});

test('bisect: ends are tried, what has no verdict is passed over, and only what is known is said', async (t) => {
  const search = async (verdicts: string) => {
    const kernels = [...verdicts].map((_, index) => `k${index}`);
    const tried: string[] = [];
    const result = await bisectKernels(
      kernels,
      async (kernel) => {
        tried.push(kernel);
        const sign = verdicts[kernels.indexOf(kernel)] ?? '';
        const verdict = ({ g: 'clean', b: 'panics', v: 'void' } as const)[sign] ?? 'inconclusive';
        return {
          verdict,
          reason: 'so',
          missChance: verdict === 'clean' ? 0.01 : verdict === 'panics' ? 0 : null,
        };
      },
      new AbortController().signal,
      () => {},
    );
    return { ...result, tried: tried.join(' ') };
  };
  t.like(await search('gggbb'), { good: 'k2', bad: 'k3', undecided: [] });
  t.like(await search('gb'), { good: 'k0', bad: 'k1', tried: 'k1 k0', confidence: 0.99 });
  t.regex((await search('gggbb')).text, /with at least 98 % confidence in all/);
  t.like(await search('gvb'), { good: 'k0', bad: 'k2', undecided: ['k1'] });
  t.like(await search('ggvvbb'), { good: 'k1', bad: 'k4', undecided: ['k2', 'k3'] });
  t.like(await search('ggg'), { bad: null, text: 'k2 was said to be bad, but is clean: so', tried: 'k2' });
  t.like(await search('vgb'), { bad: null, text: 'k0 was said to be good, but is void: so' });
});

test('bisect: the confidence of the whole search is shared out among the steps that can end with good', (t) => {
  t.is(stepsOf(2), 2);
  t.is(stepsOf(9), 5);
  t.true(stepConfidence(0.95, 9) ** 5 >= 0.95 - 1e-9);
});

test('kernels by version: el7 updates after their release, other series after', (t) => {
  const releases = [
    '6.1.0-56-amd64',
    '3.10.0-957.27.2.el7.x86_64',
    '5.10',
    '3.10.0-1062.el7.x86_64',
    '3.10.0-957.el7.x86_64',
  ];
  t.deepEqual(releases.sort(compareReleases), [
    '3.10.0-957.el7.x86_64',
    '3.10.0-957.27.2.el7.x86_64',
    '3.10.0-1062.el7.x86_64',
    '5.10',
    '6.1.0-56-amd64',
  ]);
});
