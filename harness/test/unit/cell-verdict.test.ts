import test from 'ava';
import type { Outcome, TrialOutcome } from '../../outcome/outcome-schema.js';
import { judgeCell as judge } from '../../verdict/cell-verdict.js';

const judgeCell = (list: TrialOutcome[], wanted: number) =>
  judge(list, { trials: wanted, isControl: false, control: null });

const trials = (...outcomes: Outcome[]): TrialOutcome[] =>
  outcomes.map((outcome, index) => {
    const slabs = { 'kmalloc-512': { order: 3, objectsPerSlab: 64 } };
    return { outcome, trial: index + 1, reason: 'r', guest: { slabs } } as unknown as TrialOutcome;
  });

test('one reproduced trial is enough for panics, whatever the others did', (t) => {
  t.is(judgeCell(trials('survived', 'infra-error', 'reproduced'), 3).verdict, 'panics');
});

test('clean needs every wanted trial to have survived', (t) => {
  t.is(judgeCell(trials('survived', 'survived'), 2).verdict, 'clean');
  t.is(judgeCell(trials('survived'), 2).verdict, 'inconclusive');
  t.is(judgeCell([], 1).verdict, 'inconclusive');
});

for (const outcome of ['other-crash', 'warned', 'hung', 'no-boot', 'infra-error'] as const)
  test(`${outcome} is never clean and never panics`, (t) => {
    const judgement = judgeCell(trials('survived', outcome), 2);
    t.is(judgement.verdict, 'inconclusive');
    t.is(judgement.reason, `trial 2: ${outcome}: r`);
  });

test('clean on slabs without tail pages comes with a warning', (t) => {
  const [trial] = trials('survived') as [TrialOutcome];
  t.deepEqual(judgeCell([trial], 1).warnings, []);
  const flat = { ...trial, guest: { slabs: { 'kmalloc-512': { order: 0, objectsPerSlab: 8 } } } };
  t.regex(judgeCell([flat as unknown as TrialOutcome], 1).warnings[0] ?? '', /order 0/);
});
