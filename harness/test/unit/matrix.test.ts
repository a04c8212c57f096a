import test from 'ava';
import { loadMatrix } from '../../scenario/load-matrix.js';
import { loopanic } from '../support/cli.js';
import { tempFile } from '../support/files.js';

const choice = { all: ['k1', 'k2'], stock: () => undefined };
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
    t.regex(stdout, /^skipped: centos-7\.6: not on this host: /m);
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
  ] as const)
    await t.throwsAsync(load(t, text), { message: pattern });
});
