import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { summary } from '../../cli/actions/validate.js';
import { outcomeSchema } from '../../outcome/outcome-schema.js';
import { makeReport } from '../../report/report.js';
import { contradictionIn } from '../../results/check-run.js';
import { type RunDocument, runSchema } from '../../results/run-schema.js';
import { concludeTrial, type ReadingPlan } from '../../trial/conclude.js';
import { judgeInRun } from '../../verdict/judge-run.js';
import { loopanic } from '../support/cli.js';
import { tempDir } from '../support/files.js';
import { sampleRun } from '../support/sample-run.js';

const moduleInfo = {
  ...{ vermagic: '6.1 SMP', srcversion: 'ABC', buildId: 'f00d', sha256: 'c0de' },
  ...{ source: ['one.patch: [PATCH] one'], sameCodeAs: 'stock', comparedWith: ['stock'] },
};
const SAME = "its code is the same as stock's: nothing that is compiled was changed";

test('outcome.json names the module by hash, sources, ids and whose code it has', async (t) => {
  const plan = {
    ...{
      kernel: 'k',
      module: 'm',
      moduleInfo,
      trial: 1,
      cellKey: 'key',
      seed: 1,
      token: 'c0ffee',
      accel: 'tcg',
    },
    ...{ profile: { hardenedUsercopyBuilt: true }, expected: {} },
    scenario: { name: 's', bug: 'iscsi-slab', target: 'tgtd', where: 'loopback' },
  } as unknown as ReadingPlan;
  const outcome = await concludeTrial(plan, await tempDir(t), { why: 'cut-off' }, {});
  t.deepEqual(outcomeSchema.parse(JSON.parse(JSON.stringify(outcome))).moduleInfo, moduleInfo);
  // Plans of before do not have it.
  const { moduleInfo: _, ...old } = plan;
  t.false('moduleInfo' in (await concludeTrial(old, await tempDir(t), { why: 'cut-off' }, {})));
});

test('run.json files of before, without hash and sources, are read', (t) => {
  const run = JSON.parse(JSON.stringify(sampleRun()));
  for (const cell of run.cells) cell.moduleInfo = { vermagic: 'x', srcversion: null, buildId: 'f00d' };
  t.deepEqual(runSchema.parse(run).cells[0]?.moduleInfo, {
    ...{ vermagic: 'x', srcversion: null, buildId: 'f00d' },
    ...{ sha256: '', source: [], sameCodeAs: null, comparedWith: [] },
  });
});

test('a trial of another build of the module is a contradiction', (t) => {
  const run = sampleRun();
  const [trial] = run.cells[0]?.trials ?? [];
  t.is(contradictionIn(run), null);
  if (trial) trial.moduleInfo = moduleInfo;
  t.regex(contradictionIn(run) ?? '', /trial 1 is of another build of the module/);
});

/** A run whose second cell's module changes nothing. */
function runOfNoChange(trials: 'its own' | 'none'): RunDocument {
  const run = sampleRun();
  const [control, tested] = run.cells;
  if (!control || !tested) throw new Error('no cells');
  tested.moduleInfo = moduleInfo;
  if (trials === 'none') tested.trials = [];
  Object.assign(tested, judgeInRun(run, tested));
  return { ...run, cells: [control, tested] };
}

test('every report says what was tested, and that nothing was changed', async (t) => {
  const run = runOfNoChange('its own');
  const dir = await tempDir(t);
  await mkdir(join(dir, run.run));
  await writeFile(join(dir, run.run, 'run.json'), JSON.stringify(run));
  for (const format of ['md', 'html', 'junit', 'tap'] as const) {
    const { code, stdout, stderr } = await loopanic([
      ...['report', join(dir, run.run), '--format', format, '--output', '-'],
    ]);
    t.is(code, 0, stderr);
    const text = stdout
      .replaceAll('\\', '')
      .replace(/&#39;|&apos;/g, "'")
      .replace(/\s+/g, ' ');
    for (const word of ['sha256 c0de', 'build id f00d', 'srcversion ABC', 'one.patch: [PATCH] one', SAME])
      t.true(text.includes(word), `${format}: ${word}`);
  }
  const markdown = await makeReport(sampleRun(), 'md', '/', '/');
  t.regex(markdown, /its code is another than that of stock, unpatched/);
});

test("validate's last line says that nothing was changed once, and also where the module was never booted", (t) => {
  for (const trials of ['its own', 'none'] as const) {
    const line = summary(runOfNoChange(trials));
    t.is(line.split(SAME).length, 2, line);
    t.regex(line, /; tested: sha256 c0de, build id f00d, srcversion ABC; made of one\.patch: \[PATCH\] one/);
  }
});
