import test from 'ava';
import type { GateReading } from '../../guest/gate-reading.js';
import type { Outcome, TrialOutcome } from '../../outcome/outcome-schema.js';
import { type Asked, standing } from '../../report/cell-state.js';
import type { RunCell } from '../../results/run-schema.js';
import { type CellGoal, type CellJudgement, judgeCell } from '../../verdict/cell-verdict.js';
import { sumReadings } from '../../verdict/gate-proof.js';
import { isShown, survivorsWanted } from '../../verdict/judge-run.js';

const open: GateReading = {
  ...{
    probe: 'tcp_sendpage',
    marks: 'm',
    lost: 0,
    slabSegments: 173,
    leaked: 173,
    leakedHead: 21,
    leakedTail: 152,
  },
  ...{ neighbours: 1, otherSegments: 0, cutShort: true, joined: [] },
};
const shut: GateReading = {
  ...open,
  slabSegments: 1537,
  leaked: 0,
  leakedHead: 0,
  leakedTail: 0,
  neighbours: 0,
  otherSegments: 40,
  cutShort: false,
};
const boot = (outcome: Outcome, gate: GateReading | null, order = 3): TrialOutcome =>
  ({
    ...{ outcome, trial: 1, reason: 'r', evidence: [], gate, bug: 'iscsi-slab' },
    guest: {
      slabs: { 'kmalloc-512': { order, objectsPerSlab: 64 } },
      hardenedUsercopy: 'on',
      slabDebug: { redZone: false },
      block: { nomerges: 0 },
      transport: { targetAddress: '127.0.0.1' },
    },
  }) as unknown as TrialOutcome;

const GOAL: CellGoal = { trials: 1, confidence: 0.99, byReading: true, isControl: false, control: null };
const control = (...trials: TrialOutcome[]): CellJudgement => judgeCell(trials, { ...GOAL, isControl: true });
const beside = (trials: TrialOutcome[], by: CellJudgement, more: Partial<CellGoal> = {}): CellJudgement =>
  judgeCell(trials, { ...GOAL, control: { statistics: by.statistics, differs: [] }, ...more });
const panicked = control(boot('reproduced', open));

test('one boot whose gate was read and held is clean, beside one panic with an open gate', (t) => {
  const judgement = beside([boot('survived', shut)], panicked);
  t.like(judgement, { verdict: 'clean', provenBy: 'reading', warnings: [] });
  t.is(
    judgement.reason,
    'none of 1,537 slab segments in 1 boot reached tcp_sendpage (40 other segments did), and it survived, where its positive control let 173 (21 in head pages, 152 in tail pages) through: its gate holds slab pages back, and lets others pass',
  );
});

test('statistics that were asked for are not replaced by a reading', (t) => {
  t.is(beside([boot('survived', shut)], panicked, { byReading: false }).verdict, 'inconclusive');
});

for (const [name, gate, verdict, reason] of [
  [
    'one that leaks every 100th segment',
    { leaked: 15, leakedHead: 2, leakedTail: 13 },
    'exposed',
    /15 of 1,537 slab segments/,
  ],
  ['one that leaks a single segment', { leaked: 1, leakedTail: 1 }, 'exposed', /1 of 1,537/],
  [
    'one that leaks tail pages alone',
    { leaked: 1342, leakedTail: 1342 },
    'exposed',
    /own slab flag alone: head pages are held back, tail pages pass/,
  ],
  ['one that copies everything', { otherSegments: 0 }, 'clean', /it sends everything by copy/],
  [
    'a probe that lost calls',
    { lost: 1 },
    'inconclusive',
    /without a reading of the gate \(a boot that survived has no whole reading\)/,
  ],
  ['lost calls, and a leak', { lost: 3, leaked: 3, leakedTail: 3 }, 'inconclusive', /no whole reading/],
  [
    'a workload that sent next to nothing',
    { slabSegments: 63 },
    'inconclusive',
    /only 63 slab segments were sent/,
  ],
] as const)
  test(`${name}: ${verdict}`, (t) => {
    const judgement = beside([boot('survived', { ...shut, ...gate })], panicked);
    t.is(judgement.verdict, verdict);
    t.regex(judgement.reason, reason);
  });

test('one that copies everything is clean with a warning', (t) => {
  t.deepEqual(beside([boot('survived', { ...shut, otherSegments: 0 })], panicked).warnings, [
    'it sends everything by copy: no page at all reached tcp_sendpage',
  ]);
});

test('no reading: statistics decide, as before', (t) => {
  const by = control(...Array.from({ length: 5 }, () => boot('reproduced', null)));
  t.is(beside([boot('survived', null)], by).verdict, 'inconclusive');
  t.like(
    beside(
      Array.from({ length: 3 }, () => boot('survived', null)),
      by,
    ),
    { verdict: 'clean', provenBy: 'statistics' },
  );
  // One whose own gate was read is no better off: nothing shows what an open one would let through.
  t.regex(beside([boot('survived', shut)], by).reason, /its positive control has no reading/);
});

test('every kind of page must have been sent: by number, or because the control let it through', (t) => {
  const heads = { ...open, leaked: 20, leakedHead: 20, leakedTail: 0 };
  const tails = { ...open, leaked: 20, leakedHead: 0, leakedTail: 20 };
  // 8 pages a slab: of 1,537 some were sure in each.
  t.is(beside([boot('survived', shut)], control(boot('reproduced', tails))).verdict, 'clean');
  const few = { ...shut, slabSegments: 200 };
  const reason = (own: GateReading, by: GateReading): string =>
    beside([boot('survived', own)], control(boot('reproduced', by))).reason;
  t.regex(reason(few, heads), /whether tail pages were among its 200 slab segments is not known/);
  t.regex(reason(few, tails), /whether head pages were among its 200 slab segments is not known/);
  t.is(beside([boot('survived', few)], control(boot('reproduced', open))).verdict, 'clean');
  const flat = beside([boot('survived', few, 0)], control(boot('reproduced', heads, 0)));
  t.is(flat.verdict, 'clean');
  t.regex(flat.warnings[0] ?? '', /order 0/);
  t.regex(
    beside([boot('survived', shut, 3)], control(boot('reproduced', heads, 0))).reason,
    /slabs are others/,
  );
});

test('only what survived is proof: a whole reading of a boot that failed does not stand in for it', (t) => {
  const failed = boot('infra-error', shut);
  const lossy = boot('survived', { ...shut, lost: 1 });
  t.is(beside([failed, lossy], panicked).verdict, 'inconclusive');
  // One more boot is what a reading that lost something takes, unless what it saw was a leak.
  t.like(beside([lossy, boot('survived', shut)], panicked), { verdict: 'clean', provenBy: 'reading' });
  const leaky = boot('survived', { ...shut, lost: 1, leaked: 1 });
  t.is(beside([leaky, boot('survived', shut)], panicked).verdict, 'inconclusive');
});

test('a negative control takes as many survivors as before where no gate can be read', (t) => {
  const made = run(
    Array.from({ length: 5 }, () => boot('reproduced', null)),
    [],
  );
  const other = made.cells[1] as (typeof made.cells)[number];
  other.image = { key: 'another' };
  t.is(survivorsWanted(made, other), 3);
  made.cells[0] = cell('unpatched', [boot('reproduced', open)], true);
  t.is(survivorsWanted(made, other), 1);
});

test('a probe that learned other marks than the control proves nothing', (t) => {
  t.regex(
    beside([boot('survived', { ...shut, marks: 'n' })], panicked).reason,
    /took other pages for slab pages/,
  );
});

test('clean without a reading says why there is none', (t) => {
  const alone = (trial: TrialOutcome): string[] => judgeCell([trial], GOAL).warnings.slice(1);
  t.deepEqual(alone(boot('survived', { ...shut, lost: 2 })), [
    '2 calls were lost in trial 1: its reading of the gate is none',
  ]);
  const why = (gateWhy: string): string => judgeCell([{ ...boot('survived', null), gateWhy }], GOAL).reason;
  t.is(
    why('the kernel has no kprobes'),
    '1 of 1 trials survived their workload (its gate was not read: the kernel has no kprobes)',
  );
  t.is(why('the guest set no probe'), '1 of 1 trials survived their workload');
});

test('a control that only leaked is one, and says that it did not panic', (t) => {
  const leaked = control(boot('survived', { ...open, cutShort: false }));
  t.like(leaked, { verdict: 'exposed', provenBy: 'reading' });
  t.is(beside([boot('survived', shut)], leaked).verdict, 'clean');
  t.is(beside([boot('survived', shut)], control(boot('survived', shut))).verdict, 'void');
});

for (const [name, change, link] of [
  ['usercopy off', { hardenedUsercopy: 'off' }, /does not check copies/],
  ['red zones', { slabDebug: { redZone: true } }, /red zones/],
  ['no merges', { block: { nomerges: 2 } }, /merged no requests/],
  ['two hosts', { transport: { targetAddress: '10.0.3.1' } }, /another host/],
  ['nothing', {}, /were not read as one/],
] as const)
  test(`exposed says which link was missing: ${name}`, (t) => {
    const trial = boot('survived', { ...open, cutShort: false });
    Object.assign(trial.guest ?? {}, change);
    t.regex(beside([trial], panicked).reason, link);
  });

test('a leak counts, however the boot ended; a panic counts before it', (t) => {
  t.is(beside([boot('warned', open)], panicked).verdict, 'exposed');
  t.regex(
    beside([boot('warned', open)], panicked).reason,
    /something else stopped it first; trial 1: warned: r/,
  );
  t.is(beside([boot('survived', open), boot('reproduced', open)], panicked).verdict, 'panics');
});

test('a lossy reading is left out of the sum', (t) => {
  t.is(sumReadings([boot('survived', { ...shut, lost: 1 })]), null);
  t.like(
    sumReadings([boot('survived', shut), boot('survived', { ...shut, lost: 1 }), boot('survived', shut)]),
    { boots: 2, slabSegments: 3074 },
  );
});

const cell = (module: string, trials: TrialOutcome[], isControl = false) => ({
  ...{ kernel: 'k', module, scenario: 's', isControl, unmade: null, wantedTrials: 5, trials },
  control: isControl ? null : { kernel: 'k', module: 'unpatched', scenario: 's' },
  ...{ kernelInfo: null, image: { key: 'i' }, moduleInfo: null, scripts: 'x', scenarioDefinition: null },
});
const run = (controls: TrialOutcome[], tested: TrialOutcome[], byReading = true) => ({
  cells: [cell('unpatched', controls, true), cell('fix', tested)],
  confidence: 0.99,
  request: { byReading },
});

test('boots: one of each where the gate is read, as many as statistics take where it is not', (t) => {
  const wanted = (controls: TrialOutcome[], tested: TrialOutcome[], byReading = true): number | null => {
    const made = run(controls, tested, byReading);
    return survivorsWanted(made, made.cells[1] as (typeof made.cells)[number]);
  };
  t.is(wanted([boot('reproduced', open)], []), 1);
  t.is(wanted([boot('reproduced', open)], [boot('survived', { ...shut, lost: 1 })]), 2);
  t.is(
    wanted(
      [boot('reproduced', open)],
      Array.from({ length: 5 }, () => boot('survived', null)),
    ),
    3,
  );
  t.is(
    wanted(
      Array.from({ length: 5 }, () => boot('reproduced', null)),
      [],
    ),
    3,
  );
  t.is(
    wanted(
      Array.from({ length: 5 }, () => boot('reproduced', open)),
      [],
      false,
    ),
    3,
  );
});

test('a control is booted again until it panicked and was read', (t) => {
  const shown = (...trials: TrialOutcome[]): boolean => {
    const made = run(trials, []);
    return isShown(made, made.cells[0] as (typeof made.cells)[number]);
  };
  t.true(shown(boot('reproduced', open)));
  t.false(shown(boot('survived', open)));
  t.true(shown(boot('survived', open), boot('reproduced', open)));
  t.false(shown(boot('reproduced', null)));
  t.false(shown(boot('reproduced', { ...open, leaked: 0 })));
});

test('what a leak means in the morning', (t) => {
  const gate = judgeCell([boot('survived', shut)], GOAL).statistics.gate;
  const asCell = (verdict: string, expected?: string, statistics: unknown = { gate }): RunCell =>
    ({
      verdict,
      statistics,
      isControl: false,
      ...(expected ? { expected: { verdict: expected } } : {}),
    }) as RunCell;
  const asked = { request: { noExpectationOk: false } } as Asked;
  const of = (...words: Parameters<typeof asCell>): string => standing(asCell(...words), asked);
  t.is(of('exposed', 'exposed'), 'ok');
  t.is(of('exposed', 'clean'), 'contradicted');
  t.is(of('exposed'), 'contradicted');
  t.is(of('clean', 'exposed'), 'contradicted');
  t.is(of('panics', 'exposed'), 'contradicted');
  // Neither seen nor refuted.
  t.is(of('exposed', 'panics'), 'undecided');
  t.is(of('clean', 'exposed', { gate: null }), 'undecided');
});
