import { dirname, join } from 'node:path';
import test from 'ava';
import { loadMatrix } from '../../scenario/load-matrix.js';
import { loopanic } from '../support/cli.js';
import { tempFile } from '../support/files.js';

const choice = {
  known: { kernels: ['k1', 'k2', 'k3'], modules: ['a', 'b', 'c', 'u'], scenarios: ['s', 't'] },
  present: ['k1', 'k2'],
  stock: () => undefined,
};
const load = async (t: Parameters<typeof tempFile>[0], text: string, more = {}) =>
  (await loadMatrix(await tempFile(t, 'x.matrix.yaml', text), { ...choice, ...more })).cells.map(
    ({ kernel, module, scenario, expected, control }) => [
      `${kernel}+${module}+${scenario}`,
      expected?.verdict,
      control,
    ],
  );

test('the product, what is included and excluded, and expectations', async (t) => {
  const text = `kernels: all
modules: [a, b]
scenarios: [s]
exclude: [{kernel: k2, module: b}]
include: [{kernel: k1, module: c, scenario: t, expect: clean, why: so}]
expect: [{module: a, verdict: panics, why: so}]
`;
  t.deepEqual(await load(t, text), [
    ['k1+a+s', 'panics', undefined],
    ['k1+b+s', undefined, undefined],
    ['k1+c+t', 'clean', undefined],
    ['k2+a+s', 'panics', undefined],
  ]);
});

test('positive controls: on the same kernel, on another, added where they are no cell, and none for themselves', async (t) => {
  const text = `kernels: all
modules: [a]
scenarios: [s, t]
controls:
  - {of: {kernel: k2}, kernel: k1, module: u, scenario: s}
  - {of: {scenario: t}, module: a, scenario: t}
  - {module: u, scenario: s}
`;
  t.deepEqual(await load(t, text), [
    ['k1+a+s', undefined, 4],
    ['k1+a+t', undefined, undefined],
    ['k2+a+s', undefined, 4],
    ['k2+a+t', undefined, 4],
    ['k1+u+s', undefined, undefined],
  ]);
});

test('--only brings the controls along, --kernel narrows', async (t) => {
  const text = 'kernels: all\nmodules: [a, b]\nscenarios: [s]\ncontrols: [{module: b, scenario: s}]\n';
  t.deepEqual(await load(t, text, { only: ['k1+a+*'] }), [
    ['k1+a+s', undefined, 1],
    ['k1+b+s', undefined, undefined],
  ]);
  t.deepEqual(await load(t, text, { kernels: ['k2'] }), [
    ['k2+a+s', undefined, 1],
    ['k2+b+s', undefined, undefined],
  ]);
  await t.throwsAsync(load(t, text, { only: ['nope+*'] }), {
    message: /--only nope\+\*: matches no cell of .*: k1\+a\+s, k1\+b\+s/,
  });
});

test("loopanic's own matrices name what exists; absent kernels are skipped, never clean", async (t) => {
  for (const name of ['article', 'nightly', 'repro']) {
    const { code, stdout, stderr } = await loopanic([
      'matrix',
      `scenarios/${name}.matrix.yaml`,
      '--list',
      '--kernel',
      'debian-6.1',
      '--confidence',
      '0.99',
      '--trials',
      '5',
    ]);
    t.is(code, 0, stderr);
    const skips = /^skipped: .*\bcentos-7\.6\b.*: not on this host: /m.test(stdout);
    t.is(skips, name !== 'repro', 'only kernels that the file asks for are skipped');
    t.is(/^skipped: .*\bdebian-6\.12\b.*: left out by /m.test(stdout), name !== 'repro');
  }
});

test('a matrix with a wrong key, a half expectation, no cell: file, line, key', async (t) => {
  for (const [text, pattern] of [
    [
      'kernels: all\nmodules: [a]\n',
      /x\.matrix\.yaml:\d+: include: no cell: give modules and scenarios, or include/,
    ],
    [
      'kernels: all\ninclude: [{module: a, scenario: s, expect: clean}]\n',
      /x\.matrix\.yaml:2: include\.0: expect and why go together/,
    ],
    [
      'kernels: all\nmodules: [a]\nscenarios: [s]\ncontrols: [{of: {module: x}, module: a, scenario: s}]\n',
      /x\.matrix\.yaml:4: controls\.0\.of\.module: x is not one of modules: a/,
    ],
    [
      'kernels: all\nmodules: [a]\nscenarios: [s]\nexclude:\n  - {kernel: k4}\n',
      /x\.matrix\.yaml:5: exclude\.0\.kernel: unknown kernel k4; did you mean/,
    ],
    [
      'kernels: all\ninclude:\n  - {module: aa, scenario: s}\n',
      /x\.matrix\.yaml:3: include\.0\.module: unknown module aa; did you mean a/,
    ],
    ['kernels: k1\nmodules: [a]\nscenarios: [s]\n', /x\.matrix\.yaml:1: kernels: must be all, or a list/],
    [
      'kernels: all\ninclude:\n  - {module: a, scenario: s, expect: clean, why: so}\n  - {module: a, scenario: s, expect: panics, why: so}\n',
      /x\.matrix\.yaml:4: include\.1: names the same cells as include\.0/,
    ],
    [
      'kernels: all\nmodules: [a]\nscenarios: [s]\nexpect:\n  - {module: a, verdict: clean, why: so}\n  - {module: a, scenario: s, verdict: panics, why: so}\n',
      /x\.matrix\.yaml:6: expect\.1: never counts: expect\.0 matches/,
    ],
    [
      'kernels: all\nexclude: [{kernel: k1}, {kernel: k2}]\nmodules: [a]\nscenarios: [s]\n',
      /leaves out every cell of k1, k2/,
    ],
  ] as const)
    await t.throwsAsync(load(t, text), { message: pattern });
});

test('an include states the expectation of a cell of the product, its own kernel first; its kernel joins a list', async (t) => {
  const text = `kernels: [k1, k2]
modules: [a]
scenarios: [s]
include:
  - {module: a, scenario: s, expect: clean, why: for all}
  - {kernel: k2, module: a, scenario: s, expect: panics, why: for one}
  - {kernel: k3, module: b, scenario: t}
expect: [{module: a, verdict: panics, why: less}]
`;
  t.deepEqual(await load(t, text), [
    ['k1+a+s', 'clean', undefined],
    ['k2+a+s', 'panics', undefined],
    ['k3+b+t', undefined, undefined],
  ]);
});

test('a control is one whatever --only leaves, and rests on nothing itself', async (t) => {
  const text = `kernels: [k1, k2]
modules: [a, u]
scenarios: [s]
controls:
  - {of: {kernel: k2, module: a}, module: u, scenario: s}
  - {of: {module: u}, kernel: k1, module: u, scenario: s}
`;
  const file = await tempFile(t, 'x.matrix.yaml', text);
  const { cells } = await loadMatrix(file, { ...choice, only: ['k2+u+s'] });
  t.deepEqual(
    cells.map(({ kernel, module, isControl, control }) => [kernel, module, isControl, control]),
    [['k2', 'u', true, undefined]],
  );
});

test('files in a matrix are relative to its folder, and --only knows them by name', async (t) => {
  const file = await tempFile(
    t,
    'x.matrix.yaml',
    'kernels: [k1]\nmodules: [./m.ko]\nscenarios: [own/mine.yaml]\n',
  );
  const { cells } = await loadMatrix(file, { ...choice, only: ['*+m.ko+mine'] });
  const dir = dirname(file);
  t.like(cells[0], { module: join(dir, 'm.ko'), scenario: join(dir, 'own/mine.yaml') });
});

test('confidence needs a control with the same workload, and one that can be reached', async (t) => {
  const matrix = async (text: string, confidence: string, ...more: string[]) => {
    const file = await tempFile(
      t,
      'x.matrix.yaml',
      `kernels: [debian-6.1]\nmodules: [unpatched, stock]\n${text}`,
    );
    return loopanic(['matrix', file, '--list', '--confidence', confidence, ...more]);
  };
  const none = await matrix('scenarios: [xfs-loopback]\n', '0.99');
  t.is(none.code, 2);
  t.regex(none.stderr, /debian-6\.1 unpatched xfs-loopback has no positive control/);
  const other = await matrix(
    'scenarios: [untar]\ncontrols: [{module: unpatched, scenario: xfs-loopback}]\n',
    '0.99',
  );
  t.is(other.code, 2);
  t.regex(other.stderr, /untar runs another workload than its positive control .* xfs-loopback/);
  const small = 'scenarios: [untar]\ncontrols: [{module: unpatched, scenario: untar}]\n';
  const far = await matrix(small, '0.99', '--trials', '1');
  t.is(far.code, 2);
  t.regex(far.stderr, /even if all 1 boots of a positive control panic, 459 boots .* raise --trials/);
  t.is((await matrix(small, '0.99', '--trials', '4')).code, 0);
});

test('--jobs: more guests than this host has room for are refused', async (t) => {
  const big = await tempFile(
    t,
    'big.yaml',
    'summary: big\nvm: {memoryMiB: 1048576}\nworkload: {name: ag-sweep, cycles: 1}\n',
  );
  const file = await tempFile(
    t,
    'x.matrix.yaml',
    `kernels: [debian-6.1]\nmodules: [stock, unpatched]\nscenarios: [${big}]\n`,
  );
  const { code, stderr } = await loopanic(['matrix', file, '--jobs', '8', '--dump', 'none']);
  t.is(code, 2);
  t.regex(stderr, /--jobs 8: 2 guests need 2097152 MiB, and \d+ MiB are free/);
});

test('a control is one whatever --kernel leaves, and a file for all kernels may speak of those of another host', async (t) => {
  const text = `kernels: all
exclude: [{kernel: somebody-elses}]
include:
  - {module: a, scenario: s}
  - {module: u, scenario: s, expect: panics, why: so}
  - {kernel: another-hosts, module: a, scenario: s}
controls:
  - {of: {kernel: k1}, kernel: k2, module: u, scenario: s}
  - {module: u, scenario: t}
`;
  const file = await tempFile(t, 'x.matrix.yaml', text);
  const { cells, skipped } = await loadMatrix(file, { ...choice, kernels: ['k2', 'k2'] });
  t.deepEqual(
    cells.map(({ kernel, module, scenario, isControl, control }) => [
      `${kernel}+${module}+${scenario}`,
      isControl,
      control,
    ]),
    [
      ['k2+a+s', undefined, 2],
      ['k2+u+s', true, undefined],
      ['k2+u+t', true, undefined],
    ],
  );
  t.true(skipped.some(({ kernel }) => kernel === 'another-hosts'));
  // One that this run does not have comes with its expectation.
  const one = await loadMatrix(file, { ...choice, kernels: ['k1'], only: ['k1+a+s'] });
  t.like(one.cells[1], { kernel: 'k2', module: 'u', expected: { verdict: 'panics' }, isControl: true });
});

test('matrices have names; an unknown one is told with the nearest', async (t) => {
  const { code, stdout } = await loopanic(['matrix', 'ls', '--json']);
  t.is(code, 0);
  const names = (JSON.parse(stdout) as { name: string }[]).map(({ name }) => name);
  t.deepEqual(names, ['article', 'family', 'live', 'nightly', 'repro']);
  const listed = await loopanic(['matrix', 'live', '--list', '--kernel', 'debian-6.1']);
  t.is(listed.code, 0, listed.stderr);
  t.regex(listed.stdout, /stock +nvme-tcp-buffered +1 \(control\)/);
  const wrong = await loopanic(['matrix', 'articel', '--list']);
  t.is(wrong.code, 2);
  t.regex(wrong.stderr, /unknown matrix articel; did you mean article/);
});
