import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import test from 'ava';
import { modulesToBuild } from '../../kernel/build-kernel.js';
import { changedFiles, checkIsCompiled, withoutWords } from '../../kernel/compiled-change.js';
import { loadScenario, scenarioNames } from '../../scenario/load-scenario.js';
import { guestModules } from '../../trial/plan.js';
import { loopanic } from '../support/cli.js';
import { tempDir, tempFile } from '../support/files.js';

const refusedPatches: [what: string, text: string, pattern: RegExp][] = [
  ['empty', '', /changes the content of no file/],
  [
    'about a mode only',
    'diff --git a/net/core/sock.c b/net/core/sock.c\nold mode 100644\nnew mode 100755\n',
    /changes the content of no file/,
  ],
  [
    'of a file that nothing names',
    '--- /dev/null\n+++ b/drivers/block/drbd/lp_note.c\n@@ -0,0 +1,2 @@\n+/* no Makefile names this file */\n+int lp_note;\n',
    /adds drivers\/block\/drbd\/lp_note\.c, which no Makefile is changed to name/,
  ],
];
for (const [what, text, pattern] of refusedPatches)
  test(`kernel build: a patch that is ${what} is refused at once`, async (t) => {
    const file = await tempFile(t, 'x.patch', text);
    const { code, stderr } = await loopanic(['kernel', 'build', '--patch', file, '--id', 'never-built']);
    t.is(code, 2);
    t.regex(stderr, pattern);
  });

test('hunks are counted: a line of one that looks like a head is none', (t) => {
  const text =
    '--- a/x.c\n+++ b/x.c\n@@ -1,2 +1,3 @@\n a\n--- b/y.c\n+++ b/z.c\n+c\n--- a/w.c\n+++ b/w.c\n@@ -1 +1 @@\n-a\n+b\n';
  t.deepEqual(
    changedFiles(text).map(({ path }) => path),
    ['x.c', 'w.c'],
  );
});

test('only words: comments and blank lines are no change, code in strings is one', (t) => {
  t.is(withoutWords('int a; /* x\n y */\n\n// z\nint b;'), withoutWords('int a;\nint b;'));
  t.not(withoutWords('char *a = "/* x */";'), withoutWords('char *a = "";'));
  t.not(withoutWords('a = b;'), withoutWords('a = c;'));
});

test('a change counts if a Makefile, and those above it, take its object into this configuration', async (t) => {
  const tree = await tempDir(t);
  const write = async (path: string, text: string): Promise<void> => {
    await mkdir(dirname(join(tree, path)), { recursive: true });
    await writeFile(join(tree, path), text);
  };
  await write('.config', 'CONFIG_NET=y\nCONFIG_NVME_CORE=m\n# CONFIG_NVME_TCP is not set\n');
  await write('Makefile', 'core-y += kernel/\n');
  await write('net/Makefile', 'obj-$(CONFIG_NET) += core/\n');
  await write('net/core/sock.c', '#include <linux/net.h>\n');
  await write('net/core/Makefile', 'obj-y := sock.o skbuff.o \\\n   stream.o\n');
  await write('drivers/Makefile', 'obj-y += nvme/\n');
  await write('drivers/nvme/Makefile', 'obj-$(CONFIG_NVME_CORE) += host/\n');
  await write(
    'drivers/nvme/host/Makefile',
    'obj-$(CONFIG_NVME_TCP) += nvme-tcp.o\nnvme-tcp-y += tcp.o\nobj-$(CONFIG_NVME_CORE) += nvme-core.o\nnvme-core-y += core.o\n',
  );
  const tried = async (path: string, now = 'int b;'): Promise<boolean> => {
    await write(path, now);
    return checkIsCompiled(tree, new Map([[path, 'int a;']])).then(
      () => true,
      () => false,
    );
  };
  t.true(await tried('net/core/skbuff.c'));
  t.true(await tried('net/core/stream.c'));
  t.true(await tried('drivers/nvme/host/core.c'));
  t.true(await tried('include/linux/net.h'));
  t.false(await tried('drivers/nvme/host/tcp.c'));
  t.false(await tried('net/core/unnamed.c'));
  t.false(await tried('arch/arm64/kernel/x.c'));
  t.false(await tried('Documentation/x.rst'));
  t.false(await tried('net/core/sock.c', '/* words */ int a;'));
});

test('a kernel is built with all modules that the guests of any scenario load', async (t) => {
  const profile = {
    modules: ['virtio_net'],
    optionalModules: ['crc32c-intel'],
    captureModules: ['virtio_pci'],
  };
  const built = modulesToBuild(profile);
  for (const name of await scenarioNames()) {
    const { scenario } = await loadScenario(name);
    const { modules, optionalModules } = guestModules({ profile } as never, scenario);
    for (const module of [...modules, ...optionalModules])
      t.true(built.includes(module), `${name}: ${module}`);
  }
});
