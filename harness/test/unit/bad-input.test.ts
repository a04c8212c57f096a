import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { scenariosDir } from '../../base/paths.js';
import { loopanic } from '../support/cli.js';
import { tempDir, tempFile } from '../support/files.js';

/** One line on stderr with the error's code, nothing on stdout but that in JSON if it was asked for, exit 2. */
const refused = async (t: import('ava').ExecutionContext, args: string[], line: RegExp): Promise<void> => {
  const results = await tempDir(t);
  const result = await loopanic([...args, '--results', results]);
  t.is(result.code, 2, result.stderr);
  const [, message = '', code] = /^loopanic: (.*) \[([a-z-]+)\]$/.exec(result.stderr) ?? [];
  if (args.includes('--json')) t.deepEqual(JSON.parse(result.stdout), { error: { code, message } });
  else t.is(result.stdout, '');
  t.truthy(code, result.stderr);
  t.regex(`loopanic: ${message}`, line);
  t.is(result.stderr.split('\n').length, 1, result.stderr);
  t.deepEqual(await readdir(results), [], 'nothing is half-written');
};

test('validate: what takes another kernel is said so, with what it takes; and --build-kernel is for patches', async (t) => {
  const core = await tempFile(
    t,
    'core.patch',
    '--- a/include/linux/skbuff.h\n+++ b/include/linux/skbuff.h\n@@ -1 +1 @@\n-x\n+y\n',
  );
  const validate = ['validate', '--module', core];
  await refused(
    t,
    validate,
    /core\.patch: changes include\/linux\/skbuff\.h, which no exchanged module brings along: this takes another kernel; --build-kernel builds it \((?:a quarter of an hour|the last one from debian-6\.1 took \d+ min)/,
  );
  await refused(t, [...validate, '--build-kernel', '--control', 'stock'], /--control with --build-kernel/);
  await refused(t, ['validate', '--module', 'stock', '--build-kernel'], /stock is no patch/);
  await refused(t, ['validate', '--module', 'stock', '--json', '--format', 'md'], /both want stdout/);
});

test('one kind of file for another, a mistyped key, a missing word: said as what it is', async (t) => {
  const typo = await tempFile(t, 'x.yaml', 'sumary: x\n');
  await refused(t, ['matrix', typo], /x\.yaml:1: sumary: unknown key; did you mean summary\?/);
  await refused(t, ['run', typo], /x\.yaml:1: sumary: unknown key; did you mean summary\?/);
  const short = await tempFile(t, 'y.yaml', 'summary: x\n');
  await refused(t, ['run', short], /y\.yaml:1: workload: is missing \(expected: object\)/);
  await refused(t, ['run', join(scenariosDir, 'article.matrix.yaml')], /is a matrix, not a scenario/);
  await refused(t, ['matrix', join(scenariosDir, 'untar.yaml')], /is a scenario, not a matrix/);
  await refused(t, ['frobnicate'], /unknown command frobnicate/);
  await refused(t, ['run'], /run: an argument is missing: loopanic run --help names it/);
  await refused(t, ['module', 'rm'], /unknown command module rm\. Did you mean ls\?/);
});

test('unknown names come with the nearest ones', async (t) => {
  await refused(
    t,
    ['run', 'xfs-lopback'],
    /^loopanic: unknown scenario xfs-lopback; did you mean xfs-loopback[ ?]/,
  );
  await refused(
    t,
    ['run', 'xfs-loopback', '--kernel', 'debiam-6.1'],
    /unknown kernel debiam-6\.1; did you mean debian-6\.1/,
  );
  await refused(
    t,
    ['run', 'xfs-loopback', '--module', 'unpached'],
    /unknown module unpached; did you mean unpatched\?/,
  );
  await refused(
    t,
    ['run', 'xfs-loopback', '--image', 'minmal'],
    /unknown image minmal; did you mean minimal\?/,
  );
  await refused(t, ['rum'], /unknown command/);
});

test('options out of range', async (t) => {
  await refused(
    t,
    ['run', 'xfs-loopback', '--trials', '0'],
    /--trials: must be a whole number of at least 1/,
  );
  await refused(t, ['run', 'xfs-loopback', '--trials', 'many'], /--trials: must be a whole number/);
  await refused(t, ['run', 'xfs-loopback', '--bogus'], /[Uu]nknown argument: bogus/);
  await refused(t, ['run', 'xfs-loopback', '--json', '--shell'], /--json and --shell both want stdout/);
});

/** The shipped scenario with one line replaced or added. */
const scenarioWith = async (from: RegExp, to: string): Promise<string> =>
  (await readFile(join(scenariosDir, 'xfs-loopback.yaml'), 'utf8')).replace(from, to);

for (const [title, from, to, line] of [
  [
    'wrong key',
    /sectorSize: 512/,
    'sectorsize: 512',
    /s\.yaml:\d+: filesystem\.sectorsize: unknown key; did you mean sectorSize\?/,
  ],
  [
    'wrong type',
    /cycles: 6/,
    'cycles: ten',
    /s\.yaml:\d+: workload\.cycles: Invalid input: expected (number|int)/,
  ],
  ['wrong value', /sectorSize: 512/, 'sectorSize: 513', /s\.yaml:\d+: filesystem\.sectorSize: /],
  [
    'contradiction',
    /cpus: 1 /,
    'cpus: 1\n  pinCpu: 3 ',
    /s\.yaml:\d+: vm\.pinCpu: must be below vm\.cpus \(1\)/,
  ],
  [
    'no room',
    /sizeGiB: 16/,
    'sizeGiB: 1',
    /s\.yaml:\d+: filesystem\.allocationGroups: a group needs 96 MiB: .* room for 10$/,
  ],
  ['not YAML', /workload:/, 'workload: [', /s\.yaml:\d+: not valid YAML/],
  [
    'unknown workload',
    /name: ag-sweep/,
    'name: ag-swep',
    /workload\.name: no workload ag-swep \(.*\); did you mean ag-sweep\?/,
  ],
] as const)
  test(`a scenario with a ${title}: file, line, key`, async (t) => {
    const text = await scenarioWith(from, to);
    const file = await tempFile(t, 's.yaml', text);
    await refused(t, ['run', file], line);
    const key = /^ *(\S+?):/.exec(to.split('\n').at(-1) ?? '')?.[1] ?? 'sizeGiB';
    const { stderr } = await loopanic(['run', file]);
    const named = Number(/s\.yaml:(\d+):/.exec(stderr)?.[1] ?? 0);
    if (title === 'wrong key' || title === 'wrong type')
      t.true(text.split('\n')[named - 1]?.includes(key), stderr);
  });

test('a scenario file that is not there', async (t) => {
  await refused(t, ['run', './none.yaml'], /\.\/none\.yaml: no such file/);
});

test('a matrix whose expectation names no cell', async (t) => {
  const file = await tempFile(
    t,
    'm.matrix.yaml',
    [
      'kernels: [debian-6.1]',
      'modules: [stock]',
      'scenarios: [xfs-loopback]',
      'expect:',
      '  - module: stok',
      '    verdict: clean',
      '    why: typo',
    ].join('\n'),
  );
  await refused(
    t,
    ['matrix', file],
    /m\.matrix\.yaml:5: expect\.0\.module: stok is not one of modules: stock/,
  );
});

test('an empty file, and one with two documents', async (t) => {
  await refused(t, ['matrix', await tempFile(t, 'm.yaml', '# nothing\n')], /m\.yaml: is empty$/);
  const two = 'kernels: all\n---\nkernels: all\n';
  await refused(
    t,
    ['matrix', await tempFile(t, 'm.yaml', two)],
    /m\.yaml:2: has more than one YAML document/,
  );
});

test('options without their value, choices that are none, globs that are empty', async (t) => {
  const list = ['matrix', 'scenarios/repro.matrix.yaml', '--list'];
  await refused(t, [...list, '--confidence'], /^loopanic: --confidence: needs a value/);
  await refused(t, [...list, '--results', '--json'], /^loopanic: --results: needs a value/);
  await refused(t, [...list, '--only'], /^loopanic: --only: needs a value/);
  await refused(t, [...list, '--only', ''], /^loopanic: --only: is empty/);
  await refused(
    t,
    ['report', 'x', '--format', 'xml'],
    /--format xml: choose one of html, junit, tap, md, kcidb, json/,
  );
});

test('options given twice, broken aliases, and a cache that cannot be used', async (t) => {
  await refused(
    t,
    ['run', 'xfs-lopback', '--kernel', 'a', '--kernel', 'b'],
    /--kernel: is given 2 times \(a, b\)/,
  );
  const alias = await tempFile(t, 's.yaml', 'summary: *nothing\n');
  await refused(t, ['run', alias], /s\.yaml: not valid YAML: Unresolved alias/);
  const env = { XDG_CACHE_HOME: '/dev/null' };
  const result = await loopanic(['image', 'build'], { env: { ...env, PATH: await fakeTools(t) } });
  t.is(result.code, 2);
  t.regex(
    result.stderr,
    /the cache \/dev\/null\/loopanic cannot be written to \(.*\): set XDG_CACHE_HOME \[bad-cache\]$/,
  );
});

test('modules that are none', async (t) => {
  const text = await tempFile(t, 'libiscsi_tcp.ko', 'not an object file');
  await refused(
    t,
    ['run', 'xfs-loopback', '--module', text],
    /libiscsi_tcp\.ko: not a kernel module: it is not an ELF file/,
  );
  await refused(t, ['run', 'xfs-loopback', '--module', '/bin/ls'], /\/bin\/ls: not a kernel module/);
  await refused(t, ['run', 'xfs-loopback', '--module', './none.ko'], /\.\/none\.ko: cannot be read/);
  const cut = await tempFile(t, 'cut.ko', (await readFile('/bin/ls')).subarray(0, 60));
  await refused(t, ['run', 'xfs-loopback', '--module', cut], /cut\.ko: not a kernel module/);
});

test('a results folder that cannot be written to', async (t) => {
  for (const results of ['/proc/loopanic', '/dev/null/results']) {
    const result = await loopanic(['run', 'xfs-loopback', '--results', results], {
      env: { PATH: await fakeTools(t) },
    });
    t.is(result.code, 2, result.stderr);
    t.regex(result.stderr, /--results \S+: cannot be written to/);
  }
});

/** A PATH on which every tool exists: bad input is told before anything is run. */
async function fakeTools(t: import('ava').ExecutionContext): Promise<string> {
  const dir = await tempDir(t);
  const { tools } = await import('../../host/tools.js');
  const { writeFile } = await import('node:fs/promises');
  for (const { program } of tools)
    await writeFile(join(dir, program), '#!/bin/sh\nexit 1\n', { mode: 0o755 });
  return dir;
}

test('a missing tool is named with its package', async (t) => {
  const result = await loopanic(['image', 'build'], {
    env: { PATH: await tempDir(t), XDG_CACHE_HOME: await tempDir(t) },
  });
  t.is(result.code, 2, result.stderr);
  t.regex(
    result.stderr,
    /^(image minimal …\n)?loopanic: (\S+) is not installed: run 'loopanic setup', or install the package \S+ \(dnf: \S+\)/,
  );
});

test('doctor names every finding and how to mend it', async (t) => {
  const env = { PATH: await tempDir(t), XDG_CACHE_HOME: await tempDir(t) };
  const result = await loopanic(['doctor', '--json'], { env });
  const { ok, findings } = JSON.parse(result.stdout);
  t.false(ok);
  t.is(result.code, 3);
  const missing = findings.find((finding: { what: string }) => finding.what === 'mmdebstrap');
  t.like(missing, { state: 'missing', need: 'needed', mend: 'install mmdebstrap (dnf: mmdebstrap)' });
});

test('an option that is given twice is refused, with both values, but for those that are lists', async (t) => {
  for (const words of [
    ['run', 'xfs-loopback', '--module', 'stock', '--module', 'unpatched'],
    ['run', 'xfs-loopback', '--kernel', 'debian-6.1', '--kernel', 'debian-5.10'],
    ['validate', '--module', 'a.patch', '--module', 'b.patch'],
    ['module', 'build', '--source', 'a', '--source', 'b', '--name', 'x'],
    ['matrix', 'x.yaml', '--trials', '2', '--trials', '3'],
  ]) {
    const { code, stderr } = await loopanic(words);
    t.is(code, 2, words.join(' '));
    t.regex(stderr, /^loopanic: --\w+: is given 2 times \(\S+, \S+\): give it once \[bad-usage\]$/m);
  }
});

test('a value that is the default, and a switch that is turned both ways, are given twice as well', async (t) => {
  for (const [words, line] of [
    [
      ['run', 'xfs-lopback', '--trials', '1', '--trials', '1'],
      /^loopanic: --trials: is given 2 times \(1, 1\)/,
    ],
    [['run', 'xfs-lopback', '--trials=2', '--trials', '3'], /^loopanic: --trials: is given 2 times \(2, 3\)/],
    [
      ['run', 'xfs-lopback', '--keep-dumps', 'all', '--keepDumps', 'none'],
      /^loopanic: --keep-dumps: is given 2 times \(all, none\)/,
    ],
    [
      ['kernel', 'fetch', 'debiam-6.1', '--verify', '--no-verify'],
      /^loopanic: --verify: is given 2 times \(--verify, --no-verify\)/,
    ],
    [
      ['run', 'xfs-lopback', '--json', '--json=false'],
      /^loopanic: --json: is given 2 times \(--json, --json=false\)/,
    ],
  ] as [string[], RegExp][])
    await refused(t, words, line);
});

test('completions for a shell, and -h', async (t) => {
  const { code, stdout } = await loopanic(['completion']);
  t.is(code, 0);
  t.regex(stdout, /complete .*-F _loopanic_yargs_completions loopanic/);
  const help = await loopanic(['-h']);
  t.is(help.code, 0);
  t.regex(help.stdout, /^loopanic COMMAND/);
});
