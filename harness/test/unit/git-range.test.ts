import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { execa } from 'execa';
import { exists } from '../../base/files.js';
import { bugOf } from '../../bug/family.js';
import { commitModules, isAncestor } from '../../module/git-range.js';
import { changeNames } from '../../module/sources.js';
import { loopanic } from '../support/cli.js';
import { tempDir, tempFile } from '../support/files.js';

const gate = bugOf('iscsi-slab').module;

/** A tree with a commit for each list of files. */
async function treeOf(
  t: ExecutionContext,
  ...commits: Record<string, string>[]
): Promise<{ dir: string; ids: string[] }> {
  const dir = await tempDir(t);
  const git = async (...args: string[]): Promise<string> =>
    (await execa('git', ['-C', dir, '-c', 'user.name=t', '-c', 'user.email=t@x', ...args])).stdout;
  await git('init', '-q');
  const ids: string[] = [];
  for (const [index, files] of commits.entries()) {
    for (const [name, text] of Object.entries(files)) {
      await mkdir(join(dir, name, '..'), { recursive: true });
      await writeFile(join(dir, name), text);
    }
    await git('add', '-A');
    await git('commit', '-q', '-m', `change ${index}: of "thöngs" & <more>`);
    ids.push(await git('rev-parse', 'HEAD'));
  }
  return { dir, ids };
}

const C = 'drivers/scsi/libiscsi_tcp.c';
const H = 'drivers/scsi/iscsi_tcp.h';

test('a range: the begin, and each commit that changes the module; what else it changes is told', async (t) => {
  const { dir, ids } = await treeOf(
    t,
    { [C]: 'int a;\n', [H]: '', 'drivers/scsi/scsi.c': '' },
    { [C]: 'int b;\n' },
    { 'drivers/scsi/scsi.c': 'other\n' },
    { [H]: 'int c;\n', 'include/linux/net.h': 'x\n', 'Documentation/x.rst': 'x' },
    { [C]: 'int a;\n', [H]: '' },
    { 'drivers/scsi/scsi.c': 'last\n' },
  );
  const { modules, elsewhere } = await commitModules(dir, `${ids[0]}..HEAD`, gate, 10);
  // A module that comes back is one again; the end is there, or what it is the same as.
  t.deepEqual(
    modules.map(({ commit }) => commit),
    [ids[0], ids[1], ids[3], ids[4]],
  );
  t.deepEqual(elsewhere, ['drivers/scsi/scsi.c', 'include/linux/net.h']);
  t.is(await readFile(join(modules[1]?.dir ?? '', C), 'latin1'), 'int b;\n');
  t.deepEqual(await changeNames({ kind: 'source', dir: modules[1]?.dir ?? '' }, gate), [
    `commit ${ids[1]?.slice(0, 12)}: change 1: of "thöngs" & <more>`,
  ]);
  // A folder of somebody else's says nothing of the kind.
  const other = await tempDir(t);
  await writeFile(join(other, 'libiscsi_tcp.c'), 'int x;\n');
  await writeFile(join(other, '.loopanic-origin'), 'commit 123: the official fix\n');
  t.deepEqual(await changeNames({ kind: 'source', dir: other }, gate), ['libiscsi_tcp.c']);
  // Whatever is checked out, or not committed; from a folder of the tree, too.
  await writeFile(join(dir, C), 'changed\n');
  for (const place of [dir, join(dir, 'drivers')]) {
    const head = await commitModules(place, undefined, gate, 10);
    t.is(head.modules[0]?.commit, ids[5]);
    t.is(await readFile(join(head.modules[0]?.dir ?? '', C), 'latin1'), 'int a;\n');
    t.is((await commitModules(place, `${ids[0]}..${ids[3]}`, gate, 10)).modules.length, 3);
  }
  t.true(await isAncestor(dir, ids[0] ?? '', 'HEAD'));
  t.false(await isAncestor(dir, 'HEAD', ids[0] ?? ''));
  await t.throwsAsync(commitModules(dir, `HEAD..${ids[0]}`, gate, 10), { message: /does not come before/ });
  await t.throwsAsync(commitModules(dir, `${ids[0]}..HEAD`, gate, 2), {
    message: /3 commits change libiscsi_tcp/,
  });
});

test('what came by a side branch is in the range by its merge, and its end is tried', async (t) => {
  const { dir, ids } = await treeOf(t, { [C]: 'int a;\n' }, { README: 'x' });
  const git = (...args: string[]) =>
    execa('git', ['-C', dir, '-c', 'user.name=t', '-c', 'user.email=t@x', ...args]);
  await git('checkout', '-q', '-b', 'side', ids[0] ?? '');
  await writeFile(join(dir, C), 'int side;\n');
  await git('commit', '-qam', 'on the side');
  await git('checkout', '-q', '-');
  await git('merge', '-q', '--no-ff', '-m', 'merged', 'side');
  const { modules } = await commitModules(dir, `${ids[0]}..HEAD`, gate, 10);
  t.deepEqual(
    modules.map(({ subject }) => subject),
    ['change 0: of "thöngs" & <more>', 'merged'],
  );
  t.is(await readFile(join(modules[1]?.dir ?? '', C), 'latin1'), 'int side;\n');
});

// Before the others: it changes this process's environment.
test.serial(
  "nothing that a tree's configuration names is run, and no other repository or object is read",
  async (t) => {
    const { dir, ids } = await treeOf(t, { [C]: 'int a;\n' }, { [C]: 'int b;\n' });
    const { dir: other } = await treeOf(t, { [C]: 'int other;\n' });
    const trap = await tempFile(t, 'trap.sh', `#!/bin/sh\ntouch ${dir}/TRAPPED\n`, 0o755);
    const set = (key: string, value: string) => execa('git', ['-C', dir, 'config', key, value]);
    for (const key of [
      'gpg.program',
      'core.fsmonitor',
      'core.sshCommand',
      'core.pager',
      'diff.external',
      'core.alternateRefsCommand',
    ])
      await set(key, trap);
    await set('log.showSignature', 'true');
    await set('remote.origin.url', `ext::${trap}`);
    await set('remote.origin.promisor', 'true');
    await set('remote.origin.uploadpack', trap);
    await set('protocol.ext.allow', 'always');
    // A signed commit, of which git log would ask gpg.
    const { stdout: raw } = await execa('git', ['-C', dir, 'cat-file', 'commit', 'HEAD']);
    const signed = raw.replace(
      '\n\n',
      '\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----\n\n',
    );
    const { stdout: id } = await execa('git', ['-C', dir, 'hash-object', '-t', 'commit', '-w', '--stdin'], {
      input: `${signed}\n`,
    });
    const head = await commitModules(dir, id, gate, 10);
    t.regex(head.modules[0]?.subject ?? '', /^change 1/);
    await execa('git', ['-C', dir, 'replace', ids[1] ?? '', ids[0] ?? '']);
    process.env.GIT_DIR = join(other, '.git');
    try {
      const own = await commitModules(dir, ids[1], gate, 10);
      t.is(await readFile(join(own.modules[0]?.dir ?? '', C), 'latin1'), 'int b;\n');
    } finally {
      delete process.env.GIT_DIR;
    }
    t.false(await exists(join(dir, 'TRAPPED')));
  },
);

test('what is no tree, commit or source is refused in one line, and no word of it is an option of git', async (t) => {
  const { dir, ids } = await treeOf(t, { [C]: 'int a;\n' }, { [C]: 'int b;\n' });
  const { dir: empty } = await treeOf(t, { README: 'x' });
  for (const [args, pattern] of [
    [['--git', '/nowhere'], /--git \/nowhere: cannot change to '\/nowhere'/],
    [['--git', await tempDir(t)], /not a git repository/],
    [['--git', dir, '--rev', 'nothing'], /nothing: is no commit of it/],
    [['--git', dir, '--rev', `${ids[0]}..nothing`], /nothing: is no commit of it/],
    [['--git', dir, '--rev=--output=/tmp/loopanic-written'], /--git/],
    [['--module', 'stock', '--rev', 'HEAD'], /--rev: is for --git/],
    [['--git', empty], /has no drivers\/scsi\/libiscsi_tcp\.c/],
    [['--git', dir, '--module', 'stock'], /give --module, or --git/],
    [[], /give --module, or --git/],
  ] as const) {
    const { code, stderr } = await loopanic(['validate', ...args]);
    t.is(code, 2, stderr);
    t.regex(stderr, pattern);
    t.is(stderr.split('\n').length, 1, stderr);
  }
  await t.throwsAsync(readFile('/tmp/loopanic-written'));
  const bisect = await loopanic(['bisect', '--git', dir, '--good', 'HEAD', '--bad', 'HEAD']);
  t.is(bisect.code, 2);
  t.regex(bisect.stderr, /neither of HEAD and HEAD comes before the other/);
  t.is((await loopanic(['bisect', '--good', 'debian-6.1'])).code, 2);
});
