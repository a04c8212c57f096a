import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { analysisSchema } from '../../forensics/analysis-schema.js';
import { runSchema } from '../../results/run-schema.js';
import { loopanic } from '../support/cli.js';
import { tempDir } from '../support/files.js';

// The other members of the family: each panics where its gate is open, and its dump proves that it is the one.
test.before('debug info', async (t) => {
  t.timeout(10 * 60_000);
  const result = await loopanic(['kernel', 'debuginfo', 'debian-6.1', '--json'], { timeoutSeconds: 590 });
  t.is(result.code, 0, result.stderr);
});

for (const [scenario, module, bug, reader, port] of [
  ['lio-loopback', 'unpatched', 'iscsi-slab', /^iscsi_trx$/, 3260],
  ['nvme-tcp-hugepages', 'stock', 'nvme-tcp-pages', /^kworker\//, 4420],
  ['nvme-tcp-loopback', 'unpatched', 'nvme-tcp-slab', /^kworker\//, 4420],
  ['rbd-loopback', 'unpatched', 'rbd-slab', /^msgr-worker-/, null],
] as const)
  test.serial(`${scenario} with ${module} panics as ${bug}, and its dump proves it`, async (t) => {
    t.timeout(10 * 60_000);
    const results = await tempDir(t);
    const { code, stdout, stderr } = await loopanic(
      ['run', scenario, '--module', module, '--json', '--results', results],
      { timeoutSeconds: 590 },
    );
    t.is(code, 0, stderr);
    const run = runSchema.parse(JSON.parse(stdout));
    const [trial] = run.cells[0]?.trials ?? [];
    t.like(trial, { outcome: 'reproduced', bug }, trial?.reason);
    t.regex(trial?.signature?.comm ?? '', reader);
    const dir = join(results, run.run, trial?.folder ?? '');
    const analysis = analysisSchema.parse(JSON.parse(await readFile(join(dir, 'analysis.json'), 'utf8')));
    t.deepEqual(
      analysis.checks.filter(({ holds }) => !holds),
      [],
    );
    t.is(analysis.conclusion.sought, 'yes', analysis.problem ?? '');
    t.is(analysis.facts.module?.srcversion, trial?.guest?.module.srcversion);
    if (port !== null)
      t.true([analysis.facts.socket?.localPort, analysis.facts.socket?.remotePort].includes(port));
    // What is shown is the command that gave the facts.
    const text = await readFile(join(dir, 'analysis.md'), 'utf8');
    t.true(text.includes(`${analysis.facts.skb?.address}\n`), 'the sk_buff');
  });

test.serial(
  'the fixed module survives what the stock one panics on, and says how often it was tried',
  async (t) => {
    const results = await tempDir(t);
    const { code, stdout, stderr } = await loopanic(
      ['run', 'nvme-tcp-hugepages', '--module', 'page-by-page', '--json', '--results', results],
      { timeoutSeconds: 280 },
    );
    t.is(code, 0, stderr);
    const [trial] = runSchema.parse(JSON.parse(stdout)).cells[0]?.trials ?? [];
    t.is(trial?.outcome, 'survived', trial?.reason);
    t.true((trial?.workload?.counts.spans ?? 0) >= 48);
  },
);
