import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { exists } from '../../base/files.js';
import { imagesDir } from '../../base/paths.js';
import { allBugs, gateModules, targetOf, transportOf } from '../../bug/family.js';
import { allSought, soughtAmong, soughtIn } from '../../bug/sought.js';
import { knownFact } from '../../guest/guest-facts.js';
import { imageNames } from '../../image/image.js';
import { classifyLog } from '../../log/classify.js';
import { variants } from '../../module/module.js';
import { loadScenario, scenarioNames } from '../../scenario/load-scenario.js';
import { goldenLog, loopanic } from '../support/cli.js';
import { tempFile } from '../support/files.js';

test("every record's parts exist", async (t) => {
  t.is(allBugs()[0]?.id, 'iscsi-slab');
  const scenarios = await Promise.all((await scenarioNames()).map((name) => loadScenario(name)));
  const images = await imageNames();
  for (const bug of allBugs()) {
    const { id, module, control, targets, counters } = bug;
    const transport = transportOf(bug.transport);
    t.true(await exists(join(imagesDir, `guest/transport/${transport.id}.sh`)), transport.id);
    t.true(targets.length > 0, id);
    for (const name of targets) {
      const target = targetOf(name);
      t.is(target.transport, transport.id, name);
      t.true(await exists(join(imagesDir, `guest/target/${name}.sh`)), name);
      t.true(target.image === undefined || images.includes(target.image), name);
    }
    const known = await variants(module);
    t.true(control === 'stock' || Object.hasOwn(known, control), `${id}: ${control}`);
    for (const { patches } of Object.values(known))
      for (const patch of patches)
        t.true(await exists(join(imagesDir, 'modules', module.name, patch)), `${module.name}: ${patch}`);
    t.true(counters.length > 0, id);
    t.true(
      scenarios.some(({ scenario }) => scenario.bug === id),
      `${id} has no scenario`,
    );
  }
  t.deepEqual(
    gateModules()
      .map(({ name }) => name)
      .sort(),
    ['libceph', 'libiscsi_tcp', 'nvme_tcp'],
  );
});

test('every fact that a guest script tells is one that is read', async (t) => {
  const names = await readdir(join(imagesDir, 'guest'), { recursive: true });
  const told: string[] = [];
  for (const name of names.filter((entry) => /\.sh$|^trial$/.test(entry)))
    for (const [, key = ''] of (await readFile(join(imagesDir, 'guest', name), 'utf8')).matchAll(
      /(?:^|\s)fact(?:_file|_word)? "?([a-z][\w.]*(?:\$\w+)?)/gm,
    ))
      told.push(key);
  t.true(told.length > 20);
  for (const key of told) t.true(knownFact(key.replace(/\$\w+$/, 'name')), key);
  t.false(knownFact('block.nomergers'));
});

for (const [log, bug] of [
  ['debian-6.1.192-unpatched-serial.log', 'iscsi-slab'],
  ['el7-957.27.2-usercopy-bug.log', 'iscsi-slab'],
  ['debian-6.1.192-lio.log', 'iscsi-slab'],
  ['debian-6.1.192-nvme-tcp-slab.log', 'nvme-tcp-slab'],
  ['debian-6.1.192-nvme-tcp-pages.log', 'nvme-tcp-pages'],
  ['debian-6.1.192-rbd-slab.log', 'rbd-slab'],
] as const)
  test(`${log} is ${bug}, and no other of the family`, async (t) => {
    const text = await goldenLog(log);
    t.like(classifyLog(text), { outcome: 'reproduced', bug });
    for (const { id } of allBugs())
      t.is(
        classifyLog(text, soughtAmong({ bug: id })).outcome,
        id === bug ? 'reproduced' : 'other-crash',
        id,
      );
  });

test('a work queue of another name, and a copy within one page, are not the sought panic', async (t) => {
  const text = await goldenLog('debian-6.1.192-nvme-tcp-pages.log');
  const why = (from: string | RegExp, to: string): string => {
    const verdict = classifyLog(text.replaceAll(from, to), [soughtIn({ bug: 'nvme-tcp-pages' })]);
    t.is(verdict.outcome, 'other-crash');
    return verdict.reason;
  };
  t.regex(why('nvmet_tcp_wq nvmet_tcp_io_work', 'events other_work'), /work queue was events other_work/);
  t.regex(why(/\[ *[\d.]+\] Workqueue:[^\n]*\n/g, ''), /work queue was not told/);
  t.regex(why('offset 2093056, size 8192', 'offset 4096, size 4096'), /do not run across the end/);
  t.regex(why('kworker/0:1H', 'dhclient'), /reader was dhclient/);
  t.regex(why('page alloc', '<process stack>'), /is not a page/);
  // Whoever reads from a socket: SPDK, and what is built on it.
  for (const comm of ['reactor_0', 'lcore-worker-1', 'io-engine', 'my-server']) {
    const spdk = text.replaceAll('kworker/0:1H', comm).replaceAll(/\[ *[\d.]+\] Workqueue:[^\n]*\n/g, '');
    t.is(classifyLog(spdk).bug, 'nvme-tcp-pages', comm);
  }
  // Both of the sizes that were reported from the field.
  for (const place of ['offset 0, size 65459', 'offset 130942, size 65483'])
    t.is(classifyLog(text.replaceAll('offset 2093056, size 8192', place)).bug, 'nvme-tcp-pages');
});

test('what is sought: a reader that is named stands for the targets own', (t) => {
  t.is(soughtIn({ bug: 'nvme-tcp-slab' }).receiver.words, 'nvmet_tcp_io_work');
  t.true(soughtIn({ bug: 'iscsi-slab', receiver: 'iscsi_trx' }).receiver.comm.test('iscsi_trx'));
  t.false(soughtIn({ bug: 'iscsi-slab', receiver: 'a.b' }).receiver.comm.test('axb'));
  t.true(allSought().length >= 5);
});

test('bug ls and show; an unknown bug is told with the nearest', async (t) => {
  const listed = JSON.parse((await loopanic(['bug', 'ls', '--json'])).stdout) as { id: string }[];
  t.deepEqual(
    listed.map(({ id }) => id),
    allBugs().map(({ id }) => id),
  );
  for (const { id } of listed) {
    const { code, stdout } = await loopanic(['bug', 'show', id]);
    t.is(code, 0);
    t.regex(stdout, new RegExp(`^${id}: `));
    t.regex(stdout, /scenario +\S/);
  }
  const wrong = await loopanic(['bug', 'show', 'nvme-tcp-slabs']);
  t.is(wrong.code, 2);
  t.regex(wrong.stderr, /unknown bug nvme-tcp-slabs; did you mean nvme-tcp-slab/);
});

for (const [what, text, pattern] of [
  [
    'an unknown bug',
    'like: xfs-loopback\nbug: iscsi-slap\n',
    /unknown bug iscsi-slap; did you mean iscsi-slab/,
  ],
  [
    "a target of another transport's",
    'like: xfs-loopback\ntarget: nvmet\n',
    /target: iscsi-slab has no target nvmet; .*tgtd/,
  ],
  [
    'a setting of another transport',
    'like: nvme-tcp-loopback\ntransport: {immediateData: "No"}\n',
    /transport\.immediateData: nvme-tcp has no such setting/,
  ],
  [
    'a value that a setting does not have',
    'like: xfs-loopback\ntransport: {dataDigest: MD5}\n',
    /transport\.dataDigest: must be one of None, CRC32C/,
  ],
  [
    'iscsi: of another transport',
    'like: nvme-tcp-loopback\niscsi: {dataDigest: "on"}\n',
    /iscsi: .*say transport/,
  ],
  [
    'something that the bug does not count',
    'like: xfs-loopback\nworkload: {minPerCycle: {spans: 3}}\n',
    /minPerCycle\.spans: iscsi-slab counts no such thing/,
  ],
  [
    'a scenario that is like none that exists',
    'like: xfs-loopbac\n',
    /like: unknown scenario xfs-loopbac; did you/,
  ],
  ['one that is like itself', 'like: ./wrong.yaml\n', /wrong\.yaml:1: like: .* is like this one itself/],
  ['a fault in its own part', 'like: xfs-loopback\nvm: {cpus: 0}\n', /wrong\.yaml:2: vm\.cpus/],
  ['a key that nothing has', 'like: xfs-loopback\nvolumes: {}\n', /wrong\.yaml:2: volumes: unknown key/],
] as const)
  test(`a scenario with ${what} is refused in one line`, async (t) => {
    const file = await tempFile(t, 'wrong.yaml', text);
    const { code, stderr } = await loopanic(['scenario', 'show', file]);
    t.is(code, 2);
    t.is(stderr.trim().split('\n').length, 1);
    t.regex(stderr, pattern);
  });

test('scenarios say only what is their own; older words are understood', async (t) => {
  const shown = async (text: string) =>
    JSON.parse(
      (await loopanic(['scenario', 'show', await tempFile(t, 'mine.yaml', text), '--json'])).stdout,
    ) as Record<string, unknown>;
  const child = await shown('like: lio-fileio-loopback\nworkload: {cycles: 2}\n');
  t.like(child, { bug: 'iscsi-slab', target: 'lio-fileio', where: 'loopback' });
  t.like(child.workload, { name: 'ag-sweep', cycles: 2, minPerCycle: { merged: 64, reads: 256 } });
  const old = await shown(
    'like: xfs-loopback\ntarget: peer\niscsi: {dataDigest: CRC32C}\nworkload: {minMergedPerCycle: 7}\n',
  );
  t.like(old, { target: 'tgtd', where: 'peer' });
  t.like(old.transport, { dataDigest: 'CRC32C', headerDigest: 'None' });
  t.like(old.workload, { minPerCycle: { merged: 7 } });
});

test('the DKMS folder has the same change as the variant', async (t) => {
  const dir = join(imagesDir, 'modules/nvme_tcp');
  t.is(
    await readFile(join(dir, 'dkms/page-by-page.patch'), 'utf8'),
    await readFile(join(dir, 'page-by-page.sendpage.patch'), 'utf8'),
  );
});
