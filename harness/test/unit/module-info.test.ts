import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { outcomeSchema } from '../../outcome/outcome-schema.js';
import { makeReport } from '../../report/report.js';
import { answerLines, answerMarkdown, answerOf, summary } from '../../report/validation.js';
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
  control.isControl = true;
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

test('the answer of a validation: what, where, by which evidence, and what it does not cover', (t) => {
  const run = runOfNoChange('its own');
  const lines = answerLines(run, { module: './my fix.patch' });
  t.is(lines[0], 'yes: ./my fix.patch on debian-6.1');
  const text = lines.join('\n');
  for (const pattern of [
    /^ {2}what {9}one\.patch: \[PATCH\] one/m,
    /^ {2}kernel {7}debian-6\.1 6\.1\.0-1-amd64/m,
    /^ {2}verdict {6}clean, by odds: 3 of 4 trials|^ {2}verdict {6}clean, by odds: 3 of 3 trials/m,
    /^ {2}control {6}debian-6\.1 unpatched xfs-loopback: panics: 5 of 5/m,
    /^ {2}code {9}its code is the same as stock's/m,
    /^ {2}repeat {7}/m,
    /^ {2}not covered {2}other kernels: npx loopanic validate --module '\.\/my fix\.patch' --kernel ID/m,
    /nvme-tcp-pages, nvme-tcp-slab, rbd-slab \(of other modules\): npx loopanic matrix family/,
  ])
    t.regex(text, pattern);
  const md = answerMarkdown(run, { module: './my|fix.patch' });
  t.regex(md, /^\*\*yes: \.\/my\\\|fix\.patch on debian-6\.1\*\*/);
  t.regex(md, /^\| control \| debian-6\.1 unpatched/m);
  for (const line of md.split('\n').filter((row) => row.startsWith('| ')))
    t.is(line.replace(/\\\|/g, '').split('|').length, 4, line);
});

test('yes only if every cell is clean, no as soon as one is not, and no answer where one is undecided', (t) => {
  const run = runOfNoChange('its own');
  t.is(answerOf(run), 'yes');
  const [, tested] = run.cells as [unknown, RunDocument['cells'][0]];
  const other = (verdict: RunDocument['cells'][0]['verdict']): RunDocument => ({
    ...run,
    cells: [...run.cells, { ...tested, scenario: 'lio-loopback', verdict }],
  });
  t.is(answerOf(other('clean')), 'yes');
  t.is(answerOf(other('exposed')), 'no');
  t.is(answerOf(other('inconclusive')), 'no answer');
  t.is(answerOf(other('void')), 'no answer');
  t.is(answerOf(other(null)), 'no answer');
  t.regex(summary(other('panics')), /^no: compound-head on debian-6\.1 \(lio-loopback\): panics/);
});

test("validate's last line says that nothing was changed once, and also where the module was never booted", (t) => {
  for (const trials of ['its own', 'none'] as const) {
    const line = summary(runOfNoChange(trials));
    t.is(line.split(SAME).length, 2, line);
    t.regex(line, /; tested: sha256 c0de, build id f00d, srcversion ABC; made of one\.patch: \[PATCH\] one/);
  }
});
