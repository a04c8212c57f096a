import test from 'ava';
import type { Outcome, TrialOutcome } from '../../outcome/outcome-schema.js';
import { judgeCell as judge, percent, wantedBoots } from '../../verdict/cell-verdict.js';
import { rateOf, survivorsNeeded } from '../../verdict/statistics.js';

const judgeCell = (list: TrialOutcome[], wanted: number) =>
  judge(list, { trials: wanted, confidence: 0.99, byReading: false, isControl: false, control: null });

const trials = (...outcomes: Outcome[]): TrialOutcome[] =>
  outcomes.map((outcome, index) => {
    const slabs = { 'kmalloc-512': { order: 3, objectsPerSlab: 64 } };
    return {
      outcome,
      trial: index + 1,
      reason: 'r',
      evidence: [],
      guest: { slabs },
    } as unknown as TrialOutcome;
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
  t.deepEqual(judgeCell([trial], 1).warnings, [
    'no positive control was run: nothing shows that this guest would have panicked',
  ]);
  const flat = { ...trial, guest: { slabs: { 'kmalloc-512': { order: 0, objectsPerSlab: 8 } } } };
  t.regex(judgeCell([flat as unknown as TrialOutcome], 1).warnings[1] ?? '', /order 0/);
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
    confidence: 0.99,
    byReading: false,
    isControl: true,
    control: null,
  });
  t.is(control.verdict, 'void');
  const goal = {
    trials: 1,
    confidence: 0.99,
    byReading: false,
    isControl: false,
    control: { statistics: control.statistics, differs: [] },
  };
  t.is(judge([], goal).verdict, 'void');
  t.is(judge(trials('survived'), goal).verdict, 'void');
  // A panic is a panic, whatever the control did.
  t.is(judge(trials('reproduced'), goal).verdict, 'panics');
});

/** A control with so many panics of so many boots. */
const controlOf = (panicked: number, counted: number, differs: string[] = []) => ({
  statistics: judgeCell(
    trials(
      ...Array<Outcome>(panicked).fill('reproduced'),
      ...Array<Outcome>(counted - panicked).fill('survived'),
    ),
    counted,
  ).statistics,
  differs,
});
const beside = (survivors: number, control: ReturnType<typeof controlOf>, confidence = 0.99) =>
  judge(trials(...Array<Outcome>(survivors).fill('survived')), {
    trials: 1,
    confidence,
    byReading: false,
    isControl: false,
    control,
  });

test('clean takes as many survivors as the confidence needs, and says what they are worth', (t) => {
  t.deepEqual(survivorsNeeded(5, 0.99), [null, 665, 83, 13, 6, 3]);
  t.is(beside(2, controlOf(5, 5)).verdict, 'inconclusive');
  t.regex(beside(2, controlOf(5, 5)).reason, /3 survivors are needed beside 5 panics in 5 boots/);
  const clean = beside(3, controlOf(5, 5));
  t.is(clean.verdict, 'clean');
  t.is(
    clean.reason,
    '3 of 3 trials survived their workload; a module that panics as often as its positive control is called clean in at most 0.89 % of such runs, however often that is; one that panics in 64 % of its boots or more is caught with 95 %',
  );
  // By number, one boot against one: worth nothing.
  t.is(beside(1, controlOf(1, 1)).verdict, 'inconclusive');
  t.is(beside(5, controlOf(1, 5)).verdict, 'inconclusive');
  t.is(wantedBoots(controlOf(3, 4).statistics, 0.99), 9);
});

test('a control of another experiment: the cell is a negative control, and no chance is stated', (t) => {
  const { verdict, reason, statistics } = beside(
    1,
    controlOf(5, 5, ['kernel.hardenedUsercopy (off, not on)']),
  );
  t.is(verdict, 'clean');
  t.regex(
    reason,
    /a negative control: it differs from its positive control in kernel\.hardenedUsercopy \(off, not on\)/,
  );
  t.notRegex(reason, / %/);
  t.is(statistics.missChance, null);
});

/**
 * Share of all runs, and of those with a verdict, that call a module clean which panics as often as its control: exactly, by summing over
 * all outcomes.
 */
function wrongClean(p: number, controls: number, confidence: number): { ofAll: number; ofJudged: number } {
  const needed = survivorsNeeded(controls, confidence);
  let [wrong, judged] = [0, 0];
  let chance = (1 - p) ** controls;
  for (let k = 1; k <= controls; k++) {
    chance = p === 1 ? (k === controls ? 1 : 0) : (chance * (controls - k + 1) * p) / (k * (1 - p));
    const survivors = needed[k];
    if (survivors == null) continue;
    wrong += chance * (1 - p) ** survivors;
    judged += chance;
  }
  return { ofAll: wrong, ofJudged: judged === 0 ? 0 : wrong / judged };
}

test('for every p from 0.01 to 1 and every size of control at most 1 % are called clean wrongly', (t) => {
  for (const confidence of [0.9, 0.95, 0.99])
    for (const controls of [1, 2, 3, 4, 5, 6, 8, 10, 20, 50])
      for (let p = 0.01; p <= 1.0001; p += 0.0025) {
        const { ofAll, ofJudged } = wrongClean(Math.min(p, 1), controls, confidence);
        const most = 1 - confidence + 1e-4;
        t.true(
          ofAll <= most && ofJudged <= most,
          `p ${p}, ${controls} boots, ${confidence}: ${ofAll} ${ofJudged}`,
        );
      }
});

test('the same by simulation of whole runs, with the rules that runs follow', (t) => {
  // A generator of our own: the same numbers in every run of the test.
  let state = 12345;
  const random = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  const boots = (p: number, count: number): Outcome[] =>
    Array.from({ length: count }, () => (random() < p ? 'reproduced' : 'survived'));
  const RUNS = 3000;
  for (const controls of [2, 3, 5, 10])
    for (const p of [0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.6, 0.75, 0.9, 1]) {
      let [clean, judged] = [0, 0];
      for (let run = 0; run < RUNS; run++) {
        const of = boots(p, controls);
        const panicked = of.filter((outcome) => outcome === 'reproduced').length;
        const wanted = survivorsNeeded(controls, 0.99)[panicked];
        if (wanted == null) continue;
        // Until the first panic, as a run does; most boots need no trial object to be counted.
        let survivors = 0;
        while (survivors < wanted && random() >= p) survivors++;
        const tested =
          survivors < wanted ? trials('reproduced') : trials(...Array<Outcome>(wanted).fill('survived'));
        const { verdict } = judge(tested, {
          trials: wanted,
          confidence: 0.99,
          byReading: false,
          isControl: false,
          control: controlOf(panicked, controls),
        });
        if (verdict === 'clean') clean++;
        if (verdict === 'clean' || verdict === 'panics') judged++;
      }
      // Three standard deviations of the share that is allowed.
      const slack = 3 * Math.sqrt((0.01 * 0.99) / Math.max(1, judged));
      t.true(
        judged === 0 || clean / judged <= 0.01 + slack,
        `p ${p}, ${controls} boots: ${clean} of ${judged}`,
      );
    }
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
    confidence: 0.99,
    byReading: false,
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

test('what was cut off with its run counts for nothing; what a kernel said is not tried away', (t) => {
  const [trial] = trials('infra-error') as [TrialOutcome];
  const cutOff = { ...trial, interrupted: true };
  t.like(judgeCell([cutOff, ...trials('survived')], 1), { verdict: 'clean' });
  t.is(judgeCell([cutOff], 1).statistics.cutOff, 1);
  const panicked = { ...trial, evidence: [{ file: 'serial.log', line: 1, text: 'x' }] };
  t.is(judgeCell([panicked, ...trials('survived')], 1).verdict, 'inconclusive');
  t.is(judgeCell([{ ...panicked, outcome: 'no-boot' }], 1).statistics.odd, 1);
});
