import { copyFile, cp, mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { execa } from 'execa';
import { cacheDir, imagesDir, packageRoot } from '../../base/paths.js';
import { silentProgress } from '../../base/progress.js';
import { bugOf } from '../../bug/family.js';
import { ensureBuildTree } from '../../kernel/build-tree.js';
import { elfSections, elfSymbols } from '../../kernel/elf.js';
import { stockModulePath } from '../../kernel/kernel.js';
import { codeKey } from '../../kernel/module-code.js';
import { presentKernel } from '../../kernel/store.js';
import { loopanic } from '../support/cli.js';
import { tempDir } from '../support/files.js';

// What a module is made of, and what it turns out to be: built against a real kernel, never booted.
const KERNEL = 'debian-6.1';
const FILE = 'drivers/scsi/libiscsi_tcp.c';

/** A function that nobody calls, by a patch without context. */
const adds = (name: string): string =>
  `--- a/${FILE}\n+++ b/${FILE}\n@@ -37,0 +38,3 @@\n+\n+int ${name}(int n);\n+int ${name}(int n) { return n * 3 + 1; }\n`;

let count = 0;
async function build(t: ExecutionContext, ...args: string[]) {
  const name = `test-identity-${process.pid}-${++count}`;
  const { code, stdout, stderr } = await loopanic(
    ['module', 'build', '--kernel', KERNEL, '--name', name, '--json', ...args],
    {
      timeoutSeconds: 200,
    },
  );
  t.teardown(async () => {
    const named = cacheDir('modules', 'named', 'libiscsi_tcp');
    for (const kernel of await readdir(named).catch(() => []))
      await rm(join(named, kernel, name), { recursive: true, force: true });
  });
  const [made] = code === 0 ? JSON.parse(stdout) : [];
  t.log(stderr.split('\n').at(-2) ?? '');
  return { code, stderr, made };
}
async function functionsOf(file: string): Promise<string[]> {
  return elfSymbols(elfSections(await readFile(file))).map(({ name }) => name);
}
async function kernelSource(): Promise<string> {
  const kernel = await presentKernel(KERNEL);
  if (!kernel) throw new Error('no kernel');
  return join((await ensureBuildTree(kernel, silentProgress)).source ?? '', 'drivers/scsi');
}
/** A folder with the module's own files, and others. */
async function folder(
  t: ExecutionContext,
  files: Record<string, string>,
  change = (text: string): string => text,
): Promise<string> {
  const dir = join(await tempDir(t), 'own');
  await mkdir(dir);
  const source = await kernelSource();
  await copyFile(join(source, 'iscsi_tcp.h'), join(dir, 'iscsi_tcp.h'));
  await writeFile(
    join(dir, 'libiscsi_tcp.c'),
    change(await readFile(join(source, 'libiscsi_tcp.c'), 'utf8')),
  );
  for (const [name, text] of Object.entries(files)) {
    await mkdir(join(dir, name, '..'), { recursive: true });
    await writeFile(join(dir, name), text);
  }
  return dir;
}
/** The check is there, or is not, as a macro says. */
const guarded = (text: string): string =>
  text.replace(
    /^(\s*)if \(!recv && .*$/m,
    (line) => `#ifdef DROP_CHECK\n\tif (!recv)\n#else\n${line}\n#endif`,
  );

test.serial('two patches: both are in the module, in that order, and named in the result', async (t) => {
  const dir = await tempDir(t);
  await writeFile(join(dir, 'one.patch'), `From: a\nSubject: [PATCH] the first\n\n${adds('lp_one')}`);
  await writeFile(join(dir, 'two.patch'), adds('lp_two'));
  const { code, made, stderr } = await build(
    t,
    '--patch',
    join(dir, 'one.patch'),
    '--patch',
    join(dir, 'two.patch'),
  );
  t.is(code, 0, stderr);
  const functions = await functionsOf(made.file);
  t.true(functions.includes('lp_one') && functions.includes('lp_two'));
  t.deepEqual(made.source, ['one.patch: [PATCH] the first', 'two.patch']);
  t.is(made.sameCodeAs, null);
  t.regex(made.sha256, /^[0-9a-f]{64}$/);
});

for (const [what, text] of [
  ['a comment', `--- a/${FILE}\n+++ b/${FILE}\n@@ -37,0 +38,1 @@\n+/* Only words. */\n`],
  [
    'an unset #ifdef',
    `--- a/${FILE}\n+++ b/${FILE}\n@@ -37,0 +38,3 @@\n+#ifdef CONFIG_NOT_SET_ANYWHERE\n+int lp_nothing;\n+#endif\n`,
  ],
  [
    'a structure in a header that nobody uses',
    '--- a/drivers/scsi/iscsi_tcp.h\n+++ b/drivers/scsi/iscsi_tcp.h\n@@ -16,0 +17,1 @@\n+struct lp_unused { int a; };\n',
  ],
] as const)
  test.serial(`a patch of ${what} makes stock's code, and is said to`, async (t) => {
    const file = join(await tempDir(t), 'x.patch');
    await writeFile(file, text);
    const { code, made, stderr } = await build(t, '--patch', file);
    t.is(code, 0, stderr);
    t.is(made.sameCodeAs, 'stock');
    const people = await loopanic(
      ['module', 'build', '--kernel', KERNEL, '--name', made.id, '--patch', file],
      { timeoutSeconds: 100 },
    );
    t.regex(people.stdout, /its code is the same as stock's: nothing that is compiled was changed/);
  });

test.serial('a patch that is a known variant under another name is said to be that one', async (t) => {
  const { made } = await build(
    t,
    '--patch',
    join(imagesDir, 'modules/libiscsi_tcp/unpatched.sendpage-ok.patch'),
  );
  t.is(made.sameCodeAs, 'unpatched');
});

test.serial(
  'patches in a mailbox and in a quilt series are all in the module; one that is in the source already is told so',
  async (t) => {
    const dir = await tempDir(t);
    await writeFile(join(dir, 'one.patch'), adds('lp_one'));
    await writeFile(join(dir, 'two.patch'), adds('lp_two'));
    await writeFile(join(dir, 'series'), 'one.patch\ntwo.patch\n');
    const box = join(dir, 'both.mbox');
    const mail = (name: string): string =>
      `From 0123456789 Mon Sep 17 00:00:00 2001\nFrom: a@example.org\nSubject: [PATCH] ${name}\n\nwords\n---\n${adds(name)}\n`;
    await writeFile(box, mail('lp_one') + mail('lp_two'));
    for (const [given, names] of [
      [dir, ['one.patch', 'two.patch']],
      [box, ['both.mbox#1: [PATCH] lp_one', 'both.mbox#2: [PATCH] lp_two']],
    ] as const) {
      const { made, stderr } = await build(t, '--patch', given);
      t.deepEqual(made?.source, names, stderr);
      const functions = await functionsOf(made.file);
      t.true(['lp_one', 'lp_two'].every((name) => functions.includes(name)));
    }
    const fixed = join(dir, 'fixed.patch');
    await writeFile(
      fixed,
      `--- a/${FILE}\n+++ b/${FILE}\n@@ -130,3 +130,3 @@\n \t */\n-\tif (page_count(sg_page(sg)) >= 1 && !recv)\n+\tif (!recv && sendpage_ok(sg_page(sg)))\n \t\treturn;\n`,
    );
    const { code, stderr } = await build(t, '--patch', fixed);
    t.is(code, 2);
    t.regex(stderr, /fixed\.patch: it is in this kernel's source already/);
  },
);

test.serial('a .ko that is packed, or in a package, is taken as it is', async (t) => {
  const dir = await tempDir(t);
  const { made } = await build(
    t,
    '--patch',
    join(imagesDir, 'modules/libiscsi_tcp/pageslab.sendpage-ok.patch'),
  );
  const ko = join(dir, 'libiscsi_tcp.ko');
  await copyFile(made.file, ko);
  for (const program of ['gzip', 'xz']) await execa(program, ['-k', ko]);
  const root = join(dir, 'root');
  await mkdir(join(root, 'DEBIAN'), { recursive: true });
  await mkdir(join(root, 'lib/modules/updates'), { recursive: true });
  await copyFile(ko, join(root, 'lib/modules/updates/libiscsi_tcp.ko'));
  await writeFile(
    join(root, 'DEBIAN/control'),
    'Package: fix\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: a fix\n',
  );
  const deb = join(dir, 'fix.deb');
  await execa('dpkg-deb', ['-b', root, deb]);
  for (const given of [`${ko}.gz`, `${ko}.xz`, deb]) {
    const taken = await build(t, '--ko', given);
    t.is(taken.made?.sha256, made.sha256, taken.stderr);
    t.is(taken.made?.sameCodeAs, 'pageslab');
  }
});

test.serial('what a table makes of code counts, where it stands in its source does not', async (t) => {
  const dir = await tempDir(t);
  const key = async (name: string, lines: readonly string[]): Promise<string> => {
    const file = join(dir, `${name}.patch`);
    const added = lines.map((line) => `+${line}\n`).join('');
    await writeFile(file, `--- a/${FILE}\n+++ b/${FILE}\n@@ -37,0 +38,${lines.length} @@\n${added}`);
    const { made, stderr } = await build(t, '--patch', file);
    return made ? codeKey(made.file) : stderr;
  };
  const warns = (macro: string): string => `int lp_f(int n); int lp_f(int n) { return ${macro}(n == 4); }`;
  const once = await key('once', [warns('WARN_ON_ONCE')]);
  t.is(await key('once-lower', ['/* words', ' * on two lines */', warns('WARN_ON_ONCE')]), once);
  t.not(await key('always', [warns('WARN_ON')]), once);
  const keys = 'DEFINE_STATIC_KEY_FALSE(lp_a); DEFINE_STATIC_KEY_FALSE(lp_b);';
  const asks = (name: string): string =>
    `int lp_g(void); int lp_g(void) { return static_branch_unlikely(&${name}) ? 3 : 7; }`;
  t.not(await key('a', [keys, asks('lp_a')]), await key('b', [keys, asks('lp_b')]));
});

test.serial(
  'a prebuilt .ko is taken where nothing can be built to compare it with, and that is said',
  async (t) => {
    const dir = await tempDir(t);
    await writeFile(join(dir, 'one.patch'), adds('lp_prebuilt'));
    const { made } = await build(t, '--patch', join(dir, 'one.patch'));
    t.deepEqual(made.comparedWith.slice(0, 2), ['stock', 'unpatched']);
    await copyFile(made.file, join(dir, 'libiscsi_tcp.ko'));
    // An empty cache but for the kernels, and a builder that does not answer.
    await mkdir(join(dir, 'cache/loopanic'), { recursive: true });
    await symlink(cacheDir('kernels'), join(dir, 'cache/loopanic/kernels'));
    const { code, stdout, stderr } = await loopanic(
      [
        ...['module', 'build', '--kernel', KERNEL, '--name', 'own', '--json', '--builder', 'docker'],
        ...['--ko', join(dir, 'libiscsi_tcp.ko')],
      ],
      {
        env: { XDG_CACHE_HOME: join(dir, 'cache'), DOCKER_HOST: 'unix:///nowhere.sock' },
        timeoutSeconds: 100,
      },
    );
    t.is(code, 0, stderr);
    t.like(JSON.parse(stdout)[0], { sameCodeAs: null, comparedWith: [] });
    t.regex(stderr, /its code is not compared with stock's: no Docker engine answers/);
  },
);

test.serial("a folder's own flags, headers and dkms patches have their effect", async (t) => {
  const plain = await build(t, '--source', await folder(t, {}, guarded));
  t.is(plain.made.sameCodeAs, 'stock', plain.stderr);
  for (const [what, files] of [
    ['Makefile', { Makefile: 'obj-m := libiscsi_tcp.o\nccflags-y += -DDROP_CHECK\n' }],
    [
      'Kbuild, which comes before a Makefile',
      {
        Kbuild: 'obj-m := libiscsi_tcp.o\nCFLAGS_libiscsi_tcp.o := -DDROP_CHECK\n',
        Makefile: 'obj-m := libiscsi_tcp.o\n',
      },
    ],
  ] as [string, Record<string, string>][]) {
    const { made, stderr } = await build(t, '--source', await folder(t, files, guarded));
    t.is(made?.sameCodeAs, null, `${what}: ${stderr}`);
  }
  const header = await folder(
    t,
    { 'own_rule.h': 'int lp_from_header(void);\nint lp_from_header(void) { return 7; }\n' },
    (text) => text.replace('#include "iscsi_tcp.h"', '#include "iscsi_tcp.h"\n#include "own_rule.h"'),
  );
  t.true((await functionsOf((await build(t, '--source', header)).made.file)).includes('lp_from_header'));
  const dkms = await folder(t, {
    'patches/own.patch': adds('lp_dkms').replaceAll(FILE, 'libiscsi_tcp.c'),
    'patches/other.patch': adds('lp_other').replaceAll(FILE, 'libiscsi_tcp.c'),
    Makefile: 'obj-m := libiscsi_tcp.o\n',
    'dkms.conf':
      'PACKAGE_NAME="own"\nPACKAGE_VERSION=1\nBUILT_MODULE_NAME[0]=libiscsi_tcp\nDEST_MODULE_LOCATION[0]=/updates\nPATCH[0]=own.patch\nPATCH[1]=other.patch\nPATCH_MATCH[1]="^3\\.10"\n',
  });
  // A folder is given as people are in it: by a relative path.
  const functions = await functionsOf((await build(t, '--source', relative(packageRoot, dkms))).made.file);
  t.true(functions.includes('lp_dkms'));
  t.false(functions.includes('lp_other'));
});

test.serial('what a folder sets and is not honoured is refused by name', async (t) => {
  for (const [files, pattern] of [
    [
      { 'dkms.conf': 'PRE_BUILD="configure.sh"\n' },
      /dkms\.conf:1: PRE_BUILD="configure\.sh": is not honoured here/,
    ],
    [
      { 'dkms.conf': 'MAKE[0]="make EXTRA_CFLAGS=-DX"\n' },
      /dkms\.conf:1: MAKE\[0\]="make EXTRA_CFLAGS=-DX": is not honoured here/,
    ],
    [{ 'dkms.conf': 'PATCH[0]=$(ls)\n' }, /is no plain assignment/],
    [{ Makefile: 'obj-m := other.o\n' }, /does not build libiscsi_tcp\.o/],
    [
      {
        Makefile:
          'obj-m := libiscsi_tcp.o\nall:\n\t$(MAKE) -C /x M=$(PWD) EXTRA_CFLAGS=-DDROP_CHECK modules\n',
      },
      /^loopanic: module \S+: \S+Makefile:3: .*EXTRA_CFLAGS=-DDROP_CHECK modules: is not honoured here/m,
    ],
    [
      {
        Makefile: 'obj-m := libiscsi_tcp.o other.o\n',
        'other.c': '#include <linux/module.h>\nMODULE_LICENSE("GPL");\n',
      },
      /its Makefile also builds other\.ko, which would not be tried/,
    ],
  ] as [Record<string, string>, RegExp][]) {
    const { code, stderr } = await build(t, '--source', await folder(t, files));
    t.is(code, 2, stderr);
    t.regex(stderr, pattern);
  }
  const lacking = await folder(
    t,
    {},
    (text) => `${text}\nint lp_gone(int); int lp_x(void) { return lp_gone(1); }\n`,
  );
  t.regex(
    (await build(t, '--source', lacking)).stderr,
    /cannot be loaded by debian-6\.1: ERROR: modpost: "lp_gone" \[libiscsi_tcp\.ko\] undefined!/,
  );
  const tree = await tempDir(t);
  await mkdir(join(tree, 'drivers'), { recursive: true });
  await cp(await kernelSource(), join(tree, 'drivers/scsi'), { recursive: true });
  await writeFile(join(tree, 'drivers/scsi/Makefile'), 'CFLAGS_libiscsi_tcp.o := -DX\n');
  const { code, stderr } = await build(t, '--source', tree);
  t.is(code, 2);
  t.regex(stderr, /Makefile:1: CFLAGS_libiscsi_tcp\.o := -DX: is not honoured for a whole tree/);
});

test.serial(
  'a .ko with a symbol version that this kernel does not have, and a stripped one, are refused before any boot',
  async (t) => {
    const kernel = await presentKernel(KERNEL);
    const dir = await tempDir(t);
    const built = await loopanic(['module', 'build', 'unpatched', '--kernel', KERNEL, '--json'], {
      timeoutSeconds: 100,
    });
    const content = await readFile(JSON.parse(built.stdout)[0].file);
    const at = content.indexOf(Buffer.from('sg_next\0'));
    const crc = join(dir, 'libiscsi_tcp.ko');
    const changed = Buffer.from(content);
    changed[at - 8] = (changed[at - 8] ?? 0) ^ 0x33;
    await writeFile(crc, changed);
    const refused = await build(t, '--ko', crc);
    t.is(refused.code, 2);
    t.regex(
      refused.stderr,
      /cannot be loaded by debian-6\.1: its version of the symbol sg_next is 0x[0-9a-f]{8}, this kernel's is 0x/,
    );
    const run = await loopanic([
      'run',
      'xfs-loopback',
      '--kernel',
      KERNEL,
      '--module',
      crc,
      '--results',
      join(dir, 'results'),
    ]);
    t.is(run.code, 2);
    t.regex(run.stderr, /sg_next/);
    const stripped = join(dir, 'stripped.ko');
    await writeFile(stripped, content);
    await execa('strip', ['--strip-all', stripped]);
    const { code, stderr } = await build(t, '--ko', stripped);
    t.is(code, 2);
    t.regex(stderr, /stripped|build id/);
    t.is(
      (await build(t, '--ko', stockModulePath(kernel as never, bugOf('iscsi-slab').module))).made?.sameCodeAs,
      'stock',
    );
  },
);
