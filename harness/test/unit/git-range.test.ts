import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { execa } from 'execa';
import { bugOf } from '../../bug/family.js';
import { commitModules, isAncestor } from '../../module/git-range.js';
import { changeNames } from '../../module/sources.js';
import { loopanic } from '../support/cli.js';
import { tempDir } from '../support/files.js';

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
    await git('commit', '-q', '-m', `change ${index}: of "things" & <more>`);
    ids.push(await git('rev-parse', 'HEAD'));
  }
  return { dir, ids };
}

const C = 'drivers/scsi/libiscsi_tcp.c';
const H = 'drivers/scsi/iscsi_tcp.h';

test('a range: the begin, and each commit that changes the module; what else a commit changes is told', async (t) => {
  const { dir, ids } = await treeOf(
    t,
    { [C]: 'int a;\n', [H]: '', 'drivers/scsi/scsi.c': '' },
    { [C]: 'int b;\n' },
    { 'drivers/scsi/scsi.c': 'other\n' },
    { [H]: 'int c;\n', 'include/linux/net.h': 'x\n', 'Documentation/x.rst': 'x' },
  );
  const modules = await commitModules(dir, `${ids[0]}..HEAD`, gate);
  t.deepEqual(
    modules.map(({ commit }) => commit),
    [ids[0], ids[1], ids[3]],
  );
  t.deepEqual(modules[2]?.elsewhere, ['include/linux/net.h']);
  t.is(await readFile(join(modules[1]?.dir ?? '', C), 'latin1'), 'int b;\n');
  t.deepEqual(await changeNames({ kind: 'source', dir: modules[1]?.dir ?? '' }, gate), [
    `commit ${ids[1]?.slice(0, 12)}: change 1: of "things" & <more>`,
  ]);
  // Whatever is checked out, or not committed.
  await writeFile(join(dir, C), 'changed\n');
  const [head] = await commitModules(dir, undefined, gate);
  t.is(head?.commit, ids[3]);
  t.is(await readFile(join(head?.dir ?? '', C), 'latin1'), 'int b;\n');
  t.true(await isAncestor(dir, ids[0] ?? '', 'HEAD'));
  t.false(await isAncestor(dir, 'HEAD', ids[0] ?? ''));
});

test('what is no tree, commit or source is refused in one line, and no word of it is an option of git', async (t) => {
  const { dir, ids } = await treeOf(t, { [C]: 'int a;\n' }, { [C]: 'int b;\n' });
  const { dir: empty } = await treeOf(t, { README: 'x' });
  for (const [args, pattern] of [
    [['--git', '/nowhere'], /--git \/nowhere: cannot change to '\/nowhere'/],
    [['--git', await tempDir(t)], /not a git repository/],
    [['--git', dir, '--rev', 'nothing'], /Needed a single revision|unknown revision/],
    [['--git', dir, '--rev', `${ids[0]}..nothing`], /nothing/],
    [['--git', dir, '--rev=--output=/tmp/loopanic-written'], /--git/],
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
