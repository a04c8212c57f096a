import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { runSchema } from '../../results/run-schema.js';
import { loopanic } from '../support/cli.js';
import { tempDir } from '../support/files.js';
import { kernelRpms } from '../support/kernel-rpm.js';

const ID = 'test-validate';

test.before(async () => {
  const { kernel, devel, source } = await kernelRpms();
  await loopanic(['kernel', 'add', kernel, '--devel', devel, '--source', source, '--id', ID, '--no-verify'], {
    timeoutSeconds: 100,
  });
});
test.after.always(async () => {
  await loopanic(['kernel', 'rm', ID]);
});

/** Changes the gate of a kernel without the fix. */
const patch = (...lines: string[]): string =>
  [
    '--- a/drivers/scsi/libiscsi_tcp.c',
    '+++ b/drivers/scsi/libiscsi_tcp.c',
    `@@ -130,3 +130,${lines.filter((line) => !line.startsWith('-')).length + 2} @@`,
    ' \t */',
    ...lines,
    ' \t\treturn;\n',
  ].join('\n');
const GATE = '\tif (page_count(sg_page(sg)) >= 1 && !recv)';

/** The run that a command has printed; none, if it printed an error. */
function runIn(stdout: string) {
  const document = stdout === '' ? {} : JSON.parse(stdout);
  return 'run' in document ? runSchema.parse(document) : undefined;
}

async function validate(results: string, name: string, text: string, ...args: string[]) {
  const file = join(results, name);
  await writeFile(file, text);
  const all = [
    'validate',
    '--kernel',
    ID,
    '--module',
    file,
    '--dump',
    'none',
    '--results',
    results,
    '--json',
    ...args,
  ];
  const { code, stdout, stderr } = await loopanic(all, { timeoutSeconds: 500 });
  return { code, stderr, document: runIn(stdout) };
}

test.serial('a good patch: clean by the reading of one boot, beside one of the control', async (t) => {
  const text = patch(`-${GATE}`, '+\tif (!recv && sendpage_ok(sg_page(sg)))');
  const { code, stderr, document } = await validate(await tempDir(t), 'good.patch', text);
  t.is(code, 0, stderr);
  const [control, tested] = document?.cells ?? [];
  t.is(control?.verdict, 'panics');
  t.like(tested, { verdict: 'clean', provenBy: 'reading' });
  t.deepEqual(tested?.control, { kernel: ID, module: 'unpatched', scenario: 'xfs-loopback' });
  t.true((control?.trials.length ?? 9) + (tested?.trials.length ?? 9) <= 3);
  const { gate } = tested?.statistics ?? {};
  t.like(gate, { leaked: 0, probe: 'tcp_sendpage' });
  t.true((gate?.slabSegments ?? 0) >= 1500 && (gate?.otherSegments ?? 0) > 0);
});

test.serial('a gate that lets one slab page in a hundred through: exposed, exit 1', async (t) => {
  const text = patch(
    '+\tstatic unsigned int n;',
    `-${GATE}`,
    '+\tif (!recv && (sendpage_ok(sg_page(sg)) || ++n % 100 == 0))',
  );
  const { code, document } = await validate(await tempDir(t), 'hundredth.patch', text);
  t.is(code, 1);
  const [, tested] = document?.cells ?? [];
  t.like(tested, { verdict: 'exposed', provenBy: 'reading' });
  t.regex(tested?.reason ?? '', /no panic, but 1\d of 1,5\d\d slab segments in 1 boot reached tcp_sendpage/);
});

test.serial('a patch that does nothing: panics, exit 1', async (t) => {
  const { code, document } = await validate(
    await tempDir(t),
    'nothing.patch',
    patch('+\t/* nothing */', ` ${GATE}`),
    '--trials',
    '2',
  );
  t.is(code, 1);
  t.is(document?.cells[1]?.verdict, 'panics');
});

test.serial(
  'patches that do not compile, do not apply, or change something else: exit 2, nothing booted',
  async (t) => {
    const cases: [string, string, RegExp][] = [
      [
        'broken.patch',
        patch('+\tbroken(;', ` ${GATE}`),
        /does not compile for test-validate: libiscsi_tcp\.c:\d+:\d+: error: /,
      ],
      [
        'misfit.patch',
        patch('-\tif (0)', '+\tif (1)'),
        /does not apply to this kernel's libiscsi_tcp\.c: misfit\.patch: Hunk #1 FAILED/,
      ],
      [
        'foreign.patch',
        patch(` ${GATE}`).replaceAll('drivers/scsi/libiscsi_tcp.c', 'net/core/skbuff.c'),
        /foreign\.patch: changes net\/core\/skbuff\.c, which no exchanged module brings along: .*--build-kernel/,
      ],
    ];
    for (const [name, text, pattern] of cases) {
      const { code, stderr, document } = await validate(await tempDir(t), name, text);
      t.is(code, 2, name);
      t.regex(stderr, pattern);
      t.is(document, undefined);
    }
  },
);

test.serial('a control that cannot panic leaves its dependent void: exit 3, nothing clean', async (t) => {
  const text = patch(`-${GATE}`, '+\tif (!recv && sendpage_ok(sg_page(sg)))');
  const { code, document } = await validate(
    await tempDir(t),
    'good.patch',
    text,
    '--control',
    'compound-head',
    '--trials',
    '2',
  );
  t.is(code, 3);
  t.deepEqual(
    document?.cells.map(({ verdict }) => verdict),
    ['void', 'void'],
  );
  t.is(document?.cells[1]?.trials.length, 0);
});
