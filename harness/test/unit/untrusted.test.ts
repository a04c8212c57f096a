import { mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { execa } from 'execa';
import sax from 'sax';
import { junitReport } from '../../report/junit.js';
import { markdownReport } from '../../report/markdown.js';
import { tapReport } from '../../report/tap.js';
import { loopanic } from '../support/cli.js';
import { tempDir, tempFile } from '../support/files.js';
import { sampleRun } from '../support/sample-run.js';

const RELEASE = '6.1.0-99-test';

/** A kernel's package with one thing in it that is odd. */
async function packageWith(t: ExecutionContext, change: (root: string) => Promise<unknown>): Promise<string> {
  const dir = await tempDir(t);
  const root = join(dir, 'root');
  await mkdir(join(root, 'DEBIAN'), { recursive: true });
  await mkdir(join(root, 'boot'));
  await mkdir(join(root, `lib/modules/${RELEASE}/kernel`), { recursive: true });
  await writeFile(join(root, `boot/vmlinuz-${RELEASE}`), 'no kernel');
  await writeFile(join(root, `boot/config-${RELEASE}`), '');
  await writeFile(
    join(root, 'DEBIAN/control'),
    'Package: odd\nVersion: 1\nArchitecture: amd64\nMaintainer: a <a@example.org>\nDescription: odd\n',
  );
  await change(root);
  await execa('dpkg-deb', ['--root-owner-group', '-b', root, join(dir, 'odd.deb')]);
  return join(dir, 'odd.deb');
}

for (const [what, pattern, change] of [
  [
    'a configuration that is a link to a new path',
    /boot\/config-.*: is a link that leads out/,
    (root, victim) => execa('ln', ['-sfn', victim, join(root, `boot/config-${RELEASE}`)]),
  ],
  [
    'an unpacked image that is a link to a file',
    /vmlinux-boot: is nothing that a kernel has at its top/,
    (root, victim) => symlink(victim, join(root, 'vmlinux-boot')),
  ],
  [
    'a build tree',
    /devel: is nothing that a kernel has at its top/,
    async (root, victim) => {
      await mkdir(join(root, 'devel'));
      await symlink(join(victim, '..'), join(root, 'devel/tree'));
    },
  ],
  [
    'a record of its own',
    /kernel\.json: is nothing that a kernel has at its top/,
    (root) => writeFile(join(root, 'kernel.json'), '{}'),
  ],
  [
    'a module tree that is an option',
    /lib\/modules\/--files=\.\.: is no name of a kernel release/,
    (root) => mkdir(join(root, 'lib/modules/--files=..')),
  ],
  ['a FIFO', /boot\/fifo: is a FIFO/, (root) => execa('mkfifo', [join(root, 'boot/fifo')])],
  ['a device', /boot\/null: is a device/, (root) => execa('mknod', [join(root, 'boot/null'), 'c', '1', '3'])],
  [
    'a link to a link',
    /boot\/b: is a link that leads out/,
    async (root, victim) => {
      await symlink(victim, join(root, 'boot/a'));
      await symlink('a', join(root, 'boot/b'));
    },
  ],
] as [string, RegExp, (root: string, victim: string) => Promise<unknown>][])
  test(`kernel add refuses a package with ${what}, by name, and nothing else is touched`, async (t) => {
    const dir = await tempDir(t);
    const victim = join(dir, 'victim');
    await writeFile(victim, 'mine');
    const deb = await packageWith(t, (root) => change(root, victim));
    const { code, stderr } = await loopanic(['kernel', 'add', deb, '--no-verify']);
    t.is(code, 2);
    t.regex(stderr, what === 'a link to a link' ? /boot\/[ab]: is a link that leads out/ : pattern);
    t.is(await readFile(victim, 'utf8'), 'mine');
    t.deepEqual(await readdir(dir), ['victim']);
  });

test('kernel add: a link that stays inside by its text, and does not by the way that it takes, is refused', async (t) => {
  const dir = await tempDir(t);
  const made = join(dir, 'made');
  const deep = Array.from({ length: 20 }, (_, index) => `a${index}`);
  for (const [what, link] of [
    ['a configuration', `boot/config-${RELEASE}`],
    ['an image', `boot/vmlinuz-${RELEASE}`],
    ['modules', 'usr/lib'],
  ] as const) {
    const deb = await packageWith(t, async (root) => {
      const folder = join(root, 'lib', ...deep);
      await mkdir(folder, { recursive: true });
      // To the top of what is unpacked.
      await symlink(`${'../'.repeat(deep.length)}..`, join(folder, 'up'));
      await mkdir(join(root, 'lib', dir), { recursive: true });
      await writeFile(join(root, 'lib', made), 'text of the package');
      const place = join(root, link);
      await mkdir(join(place, '..'), { recursive: true });
      await execa('rm', ['-rf', place]);
      const up = `${'../'.repeat(link.split('/').length - 1)}lib/${deep.join('/')}/up/`;
      await symlink(`${up}${'../'.repeat(deep.length)}${made.slice(1)}`, place);
    });
    const { code, stderr } = await loopanic(['kernel', 'add', deb, '--no-verify', '--id', 'test-tricked']);
    t.is(code, 2, `${what}: ${stderr}`);
    t.regex(stderr, /is a link that leads out of the package/, what);
    t.deepEqual(await readdir(dir), [], what);
  }
});

test('kernel add: names of modules that could pass for lines of a program are refused', async (t) => {
  for (const name of ['a\ninsmod b', 'a b', 'a\u0007b']) {
    const dir = await tempDir(t);
    await mkdir(join(dir, 'boot'));
    await mkdir(join(dir, `lib/modules/${RELEASE}`), { recursive: true });
    await writeFile(join(dir, `boot/vmlinuz-${RELEASE}`), 'no kernel');
    await writeFile(join(dir, `boot/config-${RELEASE}`), '');
    await writeFile(join(dir, `lib/modules/${RELEASE}/${name}.ko`), '');
    const { code, stderr } = await loopanic(['kernel', 'add', dir]);
    t.is(code, 2);
    t.regex(stderr, /has a blank or a control character in its name/);
  }
});

test('kernel add: what Node cannot remove is removed all the same', async (t) => {
  const cache = await tempDir(t);
  const deep = await packageWith(t, async (root) => {
    // Longer than a path may be where it is unpacked, made step by step.
    const step = 'for (1 .. 20) { mkdir $n or die; chdir $n or die }';
    await execa('perl', ['-e', `my $n = "d" x 200; chdir shift; ${step}`, join(root, 'lib')]);
  });
  const { code } = await loopanic(['kernel', 'add', deep, '--no-verify'], { env: { XDG_CACHE_HOME: cache } });
  t.true(code > 0);
  t.deepEqual(await readdir(join(cache, 'loopanic/tmp')), []);
});

const GATE = 'drivers/scsi/libiscsi_tcp.c';
const HEAD = 'From: a\nSubject: x\nMIME-Version: 1.0\n';
for (const [what, content] of [
  [
    'a quoted-printable mail of blanks',
    `${HEAD}Content-Transfer-Encoding: quoted-printable\n\n${' '.repeat(2_000_000)}\n`,
  ],
  [
    'a path of slashes',
    `--- a/${'a/'.repeat(100_000)}x\n+++ b/${'a/'.repeat(100_000)}x\n@@ -1 +1 @@\n-a\n+b\n`,
  ],
  [
    'mails in mails',
    `${HEAD}${Array.from({ length: 20_000 }, (_, n) => `Content-Type: multipart/mixed; boundary="b${n}"\n\n--b${n}\n`).join('')}`,
  ],
  ['nothing but lines', '\n'.repeat(3_000_000)],
] as const)
  test(`a patch that is ${what} is refused, and does not hold the program`, async (t) => {
    const file = join(await tempDir(t), 'x.patch');
    await writeFile(file, content);
    const { code, stderr } = await loopanic(['module', 'build', '--patch', file, '--name', 'x'], {
      timeoutSeconds: 25,
    });
    t.is(code, 2, stderr.slice(0, 300));
    t.regex(stderr, /^loopanic: /m);
  });

test('a series that names itself, a folder or what lies elsewhere is refused', async (t) => {
  const dir = await tempDir(t);
  await writeFile(join(dir, 'other.patch'), `--- a/${GATE}\n+++ b/${GATE}\n@@ -1 +1 @@\n-a\n+b\n`);
  for (const [name, pattern] of [
    ['series', /is named by a series, and is no patch/],
    ['folder', /is named by a series, and is no patch/],
    ['../other.patch', /is a link that leads out of|leads out/],
  ] as const) {
    const series = join(dir, name.replaceAll('/', '_'));
    await mkdir(join(series, 'folder'), { recursive: true });
    await writeFile(join(series, 'series'), `${name}\n`);
    const { code, stderr } = await loopanic(['module', 'build', '--patch', series, '--name', 'x'], {
      timeoutSeconds: 25,
    });
    t.is(code, 2, name);
    t.regex(stderr, pattern);
  }
});

test('what would do something on a terminal is shown there, and is whole in JSON', async (t) => {
  const bell = '\u001b]0;title\u0007';
  const log = await tempFile(
    t,
    'bad.log',
    `[    1.000000] kernel BUG at ${bell}x.c:1!\n[    1.000001] CPU: 0 PID: 1 Comm: a\u0008b Not tainted 6.1.0 #1\n`,
  );
  const { stdout } = await loopanic(['classify', log]);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  t.notRegex(stdout, /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/);
  const missing = await loopanic(['classify', `/nowhere/${bell}`]);
  t.is(missing.code, 2);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  t.notRegex(missing.stderr, /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/);
});

test('a line of its own in a path is none in a unit', async (t) => {
  const dir = await tempDir(t);
  const file = join(dir, 'a\nExecStartPre=touch it.matrix.yaml');
  await writeFile(file, 'scenarios: [xfs-loopback]\n');
  for (const service of ['systemd', 'github', 'gitlab']) {
    const { code, stdout, stderr } = await loopanic(['nightly-unit', file, '--for', service]);
    t.is(code, 2, service);
    t.is(stdout, '');
    t.regex(stderr, /holds a control character.*: rename it/);
  }
});

for (const [what, make] of [
  ['a FIFO', (path: string) => execa('mkfifo', [path])],
  ['a device', (path: string) => symlink('/dev/zero', path)],
  ['a folder', (path: string) => mkdir(path)],
] as const)
  test(`${what} is no file: refused at once, wherever one is asked for`, async (t) => {
    const dir = await tempDir(t);
    const path = join(dir, 'given.matrix.yaml');
    await make(path);
    for (const args of [
      ['matrix', path],
      ['kernel', 'add', path, '--no-verify'],
      ['module', 'build', '--patch', path, '--name', 'x'],
      ['module', 'build', '--ko', path, '--name', 'x'],
      ['report', path],
      ['analyze', path],
    ]) {
      const { code, stderr } = await loopanic(args, { timeoutSeconds: 20 });
      t.true(code === 2 || code === 3, `${args.join(' ')}: ${code} ${stderr}`);
      t.regex(stderr, /^loopanic: /m);
    }
  });

test('what is too large, or nested too deeply, is refused', async (t) => {
  const dir = await tempDir(t);
  const large = join(dir, 'large.matrix.yaml');
  await writeFile(large, `scenarios:\n${'  - xfs-loopback\n'.repeat(400_000)}`);
  const deep = join(dir, 'deep.matrix.yaml');
  await writeFile(deep, `scenarios: ${'['.repeat(200_000)}`);
  const bomb = join(dir, 'bomb.matrix.yaml');
  const levels = Array.from(
    { length: 12 },
    (_, n) => `l${n + 1}: &l${n + 1} [${`*l${n}, `.repeat(9)}*l${n}]`,
  );
  await writeFile(bomb, `l0: &l0 [x]\n${levels.join('\n')}\nscenarios: *l12\n`);
  for (const [file, pattern] of [
    [large, /large\.matrix\.yaml: has \d+ MiB; more than 4 are not read/],
    [deep, /deep\.matrix\.yaml.*not valid YAML/],
    [bomb, /bomb\.matrix\.yaml: not valid YAML: Excessive alias count/],
  ] as const) {
    const { code, stderr } = await loopanic(['matrix', file, '--list'], { timeoutSeconds: 40 });
    t.is(code, 2, stderr.slice(0, 300));
    t.regex(stderr, pattern);
  }
});

test('a run that has links in it is not read, nor resumed: what they lead to would be its own', async (t) => {
  const dir = await tempDir(t);
  const run = sampleRun();
  const folder = join(dir, run.run);
  await mkdir(join(folder, 'cells'), { recursive: true });
  await writeFile(join(folder, 'run.json'), JSON.stringify(run));
  await writeFile(join(dir, 'secret'), 'mine');
  await symlink(dir, join(folder, 'cells/x'));
  for (const args of [
    ['report', folder],
    ['compare', folder, folder],
    ['matrix', '--resume', folder],
  ]) {
    const { code, stdout, stderr } = await loopanic([...args, '--results', dir]);
    t.is(code, 2, args.join(' '));
    t.is(stdout, '');
    if (args[0] !== 'matrix')
      t.regex(stderr, /cells\/x: is neither a file nor a folder: a run has no such thing/);
  }
});

const NASTY = 'a &x; &#0; \u0001 ]]> <b> \r\nnot ok 99 - b | c';

test('reports are whole, whatever a guest has said', (t) => {
  const run = sampleRun();
  for (const cell of run.cells) {
    cell.reason = NASTY;
    cell.warnings.push(NASTY);
    if (cell.expected) cell.expected.why = NASTY;
    for (const trial of cell.trials) trial.reason = NASTY;
  }
  const errors: string[] = [];
  const parser = sax.parser(true);
  let text = '';
  parser.ontext = (part) => {
    text += part;
  };
  parser.onerror = (error) => {
    errors.push(error.message);
    parser.resume();
  };
  parser.write(junitReport(run)).close();
  t.deepEqual(errors, []);
  t.true(text.includes('a &x; &#0; \ufffd ]]> <b>'));
  t.notRegex(tapReport(run), /^not ok 99/m);
  t.false(tapReport(run).includes('\r'));
  t.notRegex(markdownReport(run), /^not ok 99|[^\\]<b>/m);
});
