import test from 'ava';
import type { Outcome, TrialOutcome } from '../../outcome/outcome-schema.js';
import { judgeCell as judge, percent, wantedBoots } from '../../verdict/cell-verdict.js';
import { bootsNeeded, missChance, rateOf } from '../../verdict/statistics.js';

const judgeCell = (list: TrialOutcome[], wanted: number) =>
  judge(list, { trials: wanted, sequential: false, isControl: false, control: null });

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

test('infra errors that were tried again do not stand in the way of clean, and never count for it', (t) => {
  t.is(judgeCell(trials('survived', 'infra-error', 'survived'), 2).verdict, 'clean');
  t.is(judgeCell(trials('survived', 'infra-error', 'no-boot'), 2).verdict, 'inconclusive');
  t.is(judgeCell(trials('infra-error', 'infra-error'), 2).verdict, 'inconclusive');
  t.is(judgeCell(trials('survived', 'survived', 'hung'), 2).verdict, 'inconclusive');
  t.like(judgeCell(trials('survived', 'infra-error', 'hung'), 1).statistics, {
    counted: 1,
    retried: 1,
    odd: 1,
    survived: 1,
  });
});

test('a positive control that survives is void, and so is what depends on it', (t) => {
  const control = judge(trials('survived', 'survived'), {
    trials: 2,
    sequential: false,
    isControl: true,
    control: null,
  });
  t.is(control.verdict, 'void');
  const goal = { trials: 1, sequential: false, isControl: false, control: control.statistics };
  t.is(judge([], goal).verdict, 'void');
  t.is(judge(trials('survived'), goal).verdict, 'void');
  // A panic is a panic, whatever the control did.
  t.is(judge(trials('reproduced'), goal).verdict, 'panics');
});

test('the chance of a miss is the beta-binomial predictive of no panic', (t) => {
  // By hand: 5 of 5 panicked; (1/7)(2/8)(3/9)(4/10).
  t.true(Math.abs(missChance(5, 5, 4) - 1 / 210) < 1e-12);
  t.is(missChance(5, 5, 0), 1);
  // No knowledge: the average of (1 - p) over all p is one half.
  t.is(missChance(0, 0, 1), 0.5);
  t.is(bootsNeeded(5, 5, 0.99, 200), 4);
  t.is(bootsNeeded(1, 1, 0.99, 200), 13);
  t.is(bootsNeeded(0, 5, 0.99, 200), null);
  t.is(bootsNeeded(1, 50, 0.99, 200), null);
  const { statistics } = judgeCell(
    trials('reproduced', 'reproduced', 'reproduced', 'survived', 'infra-error'),
    4,
  );
  t.is(wantedBoots(statistics, 0.9), bootsNeeded(3, 4, 0.9, 200));
});

test("Wilson's interval: values of his formula", (t) => {
  const near = (found: number | undefined, wanted: number): boolean =>
    t.true(Math.abs((found ?? 9) - wanted) < 5e-4, `${found}`);
  near(rateOf(5, 5)?.low, 0.5655);
  near(rateOf(5, 5)?.high, 1);
  near(rateOf(0, 10)?.high, 0.2775);
  near(rateOf(8, 10)?.low, 0.4902);
  near(rateOf(8, 10)?.high, 0.9433);
  t.is(rateOf(0, 0), null);
});

test('a panic whose dump shows another cause counts neither for nor against', (t) => {
  const [survivor, panic] = trials('survived', 'reproduced') as [TrialOutcome, TrialOutcome];
  const refuted = { ...panic, analysis: { sought: 'no', text: 'another reader' } };
  const judgement = judge([survivor, refuted], {
    trials: 1,
    sequential: false,
    isControl: false,
    control: null,
  });
  t.is(judgement.verdict, 'inconclusive');
  t.is(judgement.reason, 'trial 2: reproduced: but its dump: another reader');
  t.is(judgement.statistics.panicked, 0);
});

test('a panic beside trials that ended in another way: the rate is of those that tell', (t) => {
  const { reason, statistics } = judgeCell(trials('reproduced', 'hung', 'other-crash'), 3);
  t.is(reason, '1 of 1 trials panicked with the sought signature; 2 more ended in another way');
  t.is(statistics.rate?.share, 1);
});

test('by number, more boots than a sequential test would make are no obstacle', (t) => {
  const control = judgeCell(trials('reproduced'), 1).statistics;
  const many = trials(...Array<Outcome>(250).fill('survived'));
  t.is(judge(many, { trials: 250, sequential: false, isControl: false, control }).verdict, 'clean');
  t.is(judge(many, { trials: 250, sequential: true, isControl: false, control }).verdict, 'inconclusive');
});

test('chances for people are never rounded to certainty', (t) => {
  t.deepEqual([0, 0.0048, 0.57, 0.9, 0.99, 0.996, 0.9999, 1].map(percent), [
    '0 %',
    '0.48 %',
    '57 %',
    '90 %',
    '99 %',
    '99.6 %',
    '99.99 %',
    '100 %',
  ]);
  t.is(rateOf(0, 5)?.low, 0);
  t.is(rateOf(5, 5)?.high, 1);
});
