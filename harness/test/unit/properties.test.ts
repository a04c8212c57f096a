import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import fc from 'fast-check';
import { FactReader } from '../../guest/guest-facts.js';
import { GuestMarkers, LineSplitter } from '../../guest/guest-markers.js';
import { KernelLog } from '../../guest/kernel-log.js';
import { classifyLog } from '../../log/classify.js';
import { parseLines } from '../../log/log-line.js';
import type { TrialOutcome } from '../../outcome/outcome-schema.js';
import { contradictionIn } from '../../results/check-run.js';
import { trialPath } from '../../results/trial-path.js';
import { concludeTrial, concludeUnreadable, type ReadingPlan, TRIAL_FILES } from '../../trial/conclude.js';
import { judgeCell } from '../../verdict/cell-verdict.js';
import { judgeInRun } from '../../verdict/judge-run.js';
import { goldenLog } from '../support/cli.js';
import { tempDir } from '../support/files.js';
import { sampleRun } from '../support/sample-run.js';

const TOKEN = 'c0ffee00';
const expected = {
  ...{ hardenedUsercopy: 'on', release: '6.1.0', module: { srcversion: 'ABC', buildId: 'f00d' } },
  ...{ filesystem: 'xfs', sectorSize: 512, blockSize: 4096, nomerges: 0 },
  transport: { headerDigest: 'None', dataDigest: 'None', immediateData: 'Yes', targetAddress: '127.0.0.1' },
  ...{ slubMinOrder: 3, slubMaxOrder: null, redZone: false, loopback: true, onlineCpus: 1 },
  ...{ allocationGroups: 8, writebackCentiseconds: null, cycles: 2 },
  proof: [
    {
      key: 'merged',
      least: 4,
      leastInAll: 0,
      bytes: 0,
      words: 'merged two-sector writes',
      tooFew: 'it did not try the trigger',
    },
    {
      key: 'reads',
      least: 8,
      leastInAll: 0,
      bytes: 0,
      words: 'reads of AG headers from the LUN',
      tooFew: 'they were in memory',
    },
  ],
};
const plan = {
  ...{ kernel: 'k', module: 'm', trial: 1, cellKey: 'key', seed: 1, token: TOKEN, accel: 'tcg', expected },
  profile: { hardenedUsercopyBuilt: true },
  scenario: { name: 's', bug: 'iscsi-slab', target: 'tgtd', where: 'loopback' },
} as ReadingPlan;

/** A trial that survived, as its two ports have it. */
function survivor(): { console: string; guest: string } {
  const facts = [
    ...['release 6.1.0', 'module.srcversion ABC', 'module.buildId f00d', 'usercopy.checks 9'],
    ...['session.localPorts A1B2', 'cmdline x', 'cpus.online 0', 'slab kmalloc-512 3 64', 'slab.redZone 0'],
    ...['block.nomerges 0', 'filesystem.name xfs', 'filesystem.sectorSize 512', 'filesystem.blockSize 4096'],
    ...['filesystem.allocationGroups 8', 'filesystem.writebackCentiseconds 3000'],
    ...['transport.headerDigest None', 'transport.dataDigest None', 'transport.immediateData Yes'],
    'transport.targetAddress 127.0.0.1',
  ];
  const said = [
    ...['up', 'phase modules', 'phase target', 'phase login', 'phase mount', 'phase workload'],
    ...['cycle 1 merged=8 reads=16 bytes=4096', 'cycle 2 merged=16 reads=32 bytes=8192'],
    'done cycles=2 merged=16 reads=32 bytes=8192',
  ].map((text, index) => `loopanic:${TOKEN}:${index + 1}: ${text}`);
  const records = said.flatMap((text) => [text, 'XFS (sda): Ending recovery (logdev: internal)']);
  const console = [
    'Linux version 6.1.0',
    ...records,
    `loopanic:${TOKEN}:${said.length + 1}: ended records=${records.length} last=${records.length + 99}`,
  ]
    .map((text, index) => `[${String(index + 1).padStart(5)}.000000] ${text}\r\n`)
    .join('');
  const guest = [
    ...facts,
    'alive',
    'again',
    ...facts,
    ...records.map((text, index) => `kmsg ${100 + index} 5 ${text}`),
    `kmsg.end 100 ${records.length + 99}`,
  ]
    .map((text) => `@${TOKEN} ${text}\r\n`)
    .join('');
  return { console, guest };
}

async function outcomeOf(
  dir: string,
  logs: { console: Buffer | string; guest: Buffer | string },
): Promise<TrialOutcome> {
  await mkdir(dir, { recursive: true });
  await writeFile(join(dir, TRIAL_FILES.console), logs.console);
  await writeFile(join(dir, TRIAL_FILES.guest), logs.guest);
  return concludeTrial(plan, dir, { why: 'finished', lunBytesWritten: 2 ** 40 }, {});
}

test('a whole story survives; cut short by a single byte or more, at either port, it does not', async (t) => {
  const dir = await tempDir(t);
  const { console, guest } = survivor();
  t.is((await outcomeOf(dir, { console, guest })).outcome, 'survived');
  // The last line's end, and the count in it, may be missing a carriage return and a newline only.
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 0, max: console.trimEnd().length - 1 }), async (length) => {
      const { outcome } = await outcomeOf(dir, { console: console.slice(0, length), guest });
      t.not(outcome, 'survived');
    }),
    { numRuns: 150 },
  );
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 0, max: guest.trimEnd().length - 1 }), async (length) => {
      const { outcome } = await outcomeOf(dir, { console, guest: guest.slice(0, length) });
      t.not(outcome, 'survived');
    }),
    { numRuns: 150 },
  );
});

test('no line of either port that matters can be left out', async (t) => {
  const dir = await tempDir(t);
  const { console, guest } = survivor();
  const without = (text: string, index: number): string =>
    text
      .split('\r\n')
      .filter((_, at) => at !== index)
      .join('\r\n');
  for (const [index, line] of console.split('\r\n').entries()) {
    if (!line.includes('loopanic:')) continue;
    const { outcome } = await outcomeOf(dir, { console: without(console, index), guest });
    t.not(outcome, 'survived', line);
  }
  // What is told twice is needed twice; heartbeats, the command line and the srcversion beside a build id are not.
  for (const [index, line] of guest.split('\r\n').entries()) {
    if (line === '' || /alive|cmdline|srcversion|slab\.redZone|writeback/.test(line)) continue;
    const { outcome } = await outcomeOf(dir, { console, guest: without(guest, index) });
    t.not(outcome, 'survived', line);
  }
});

test('a panic inside a survivor is seen wherever it stands, in any chunks, among binary rubbish', async (t) => {
  const dir = await tempDir(t);
  const { console, guest } = survivor();
  const panic = Buffer.from(await goldenLog('debian-6.1.192-unpatched-serial.log'), 'latin1').subarray(-9000);
  const lines = console.split('\r\n');
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 4, max: lines.length - 1 }),
      fc.uint8Array({ maxLength: 200 }),
      async (at, rubbish) => {
        const text = Buffer.concat([
          Buffer.from(`${lines.slice(0, at).join('\r\n')}\r\n`),
          rubbish,
          Buffer.from('\r\n'),
          panic,
          Buffer.from(`\r\n${lines.slice(at).join('\r\n')}`),
        ]);
        const { outcome } = await outcomeOf(dir, { console: text, guest });
        t.true(['reproduced', 'other-crash'].includes(outcome), outcome);
      },
    ),
    { numRuns: 60 },
  );
});

test('the reader of lines gives the same for any split into chunks', (t) => {
  const { console } = survivor();
  const whole = parseLines(console);
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 300 }), { maxLength: 40 }), (sizes) => {
      const found: unknown[] = [];
      const splitter = new LineSplitter((line) => void found.push(line));
      let from = 0;
      for (const size of sizes) {
        splitter.push(Buffer.from(console.slice(from, from + size), 'latin1'));
        from += size;
      }
      splitter.push(Buffer.from(console.slice(from), 'latin1'));
      splitter.flush();
      t.deepEqual(found, whole);
    }),
    { numRuns: 100 },
  );
});

test('readers take anything without throwing, and number their lines from 1 upwards', (t) => {
  const piece = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 60 }),
    fc.constantFrom(
      ...[
        `loopanic:${TOKEN}:1: up`,
        `loopanic:${TOKEN}:`,
        `@${TOKEN} kmsg 5 5 x`,
        `@${TOKEN} slab a b c`,
        `@${TOKEN} again`,
      ],
      ...[
        '[    1.000000] ',
        '[[[1.1',
        'usercopy: Kernel memory exposure attempt',
        'kernel BUG at ',
        'Call Trace:',
        '\u001b[31m',
      ],
    ),
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
      const text = pieces.join('\n');
      classifyLog(text);
      const [markers, facts] = [new GuestMarkers(TOKEN), new FactReader(TOKEN)];
      let last = 0;
      for (const line of parseLines(text)) {
        t.true(line.number >= last && line.number >= 1);
        last = line.number;
        markers.push(line);
        facts.push(line.text, line.number);
      }
      facts.facts(true);
      facts.factsAfter(true);
    }),
    { numRuns: 400 },
  );
});

test("the kernel's log is whole only if every record came, in order", (t) => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 30 }),
      fc.integer({ min: 0, max: 29 }),
      fc.boolean(),
      (count, at, swap) => {
        const records = Array.from({ length: count }, (_, index) => `kmsg ${7 + index} 6 text ${index}`);
        const read = (list: readonly string[]): string | null => {
          const log = new KernelLog();
          for (const [index, record] of [...list, `kmsg.end 7 ${6 + count}`].entries())
            log.push(record, index + 1);
          return log.notWhole({ records: count, last: 6 + count });
        };
        t.is(read(records), null);
        const place = at % count;
        const damaged = [...records];
        if (swap && place > 0)
          [damaged[place - 1], damaged[place]] = [damaged[place] ?? '', damaged[place - 1] ?? ''];
        else damaged.splice(place, 1);
        t.not(read(damaged), null);
      },
    ),
  );
});

test('two cells never share a folder, and no folder leaves its run', (t) => {
  const name = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 80 });
  const cell = fc.record({ kernel: name, module: name, scenario: name });
  fc.assert(
    fc.property(cell, cell, (one, two) => {
      const [a, b] = [trialPath(one, 1), trialPath(two, 1)];
      t.is(a === b, JSON.stringify(one) === JSON.stringify(two));
      t.regex(a, /^cells\/[A-Za-z0-9_.@%+-]{1,255}\/trial-001$/);
    }),
    { numRuns: 500 },
  );
  const of = (module: string): string => trialPath({ kernel: 'k', module, scenario: 's' }, 1);
  t.not(of('fix+1'), of('fix_1'));
  t.not(of('fix~1'), of('fix_1'));
  t.not(of('x'.repeat(300)), of(`${'x'.repeat(299)}y`));
});

test('no mix of trials without enough survivors, or with anything else in it, is clean', (t) => {
  const outcome = fc.constantFrom(
    'reproduced',
    'other-crash',
    'warned',
    'survived',
    'hung',
    'no-boot',
    'infra-error',
  );
  fc.assert(
    fc.property(fc.array(outcome, { maxLength: 12 }), fc.integer({ min: 1, max: 6 }), (outcomes, wanted) => {
      const trials = outcomes.map((name, index) => ({
        outcome: name,
        trial: index + 1,
        reason: '',
        evidence: [],
        guest: null,
      }));
      const { verdict } = judgeCell(trials as never, {
        trials: wanted,
        confidence: 0.99,
        byReading: false,
        isControl: false,
        control: null,
      });
      const survived = outcomes.filter((name) => name === 'survived').length;
      const bad = outcomes.some((name) => ['reproduced', 'other-crash', 'warned', 'hung'].includes(name));
      t.is(verdict === 'clean', survived >= wanted && !bad);
      t.is(verdict === 'panics', outcomes.includes('reproduced'));
    }),
    { numRuns: 400 },
  );
});

test('a run whose verdict, outcomes or numbers were changed contradicts itself', (t) => {
  t.is(contradictionIn(sampleRun()), null);
  const outcome = fc.constantFrom('reproduced', 'other-crash', 'warned', 'survived', 'hung', 'infra-error');
  const verdict = fc.constantFrom('panics', 'clean', 'inconclusive', 'void');
  fc.assert(
    fc.property(fc.nat(5), fc.nat(4), outcome, verdict, (at, index, changed, claimed) => {
      const run = sampleRun();
      const cell = run.cells[at];
      const trial = cell?.trials[index];
      if (!cell || !trial) return;
      trial.outcome = changed as TrialOutcome['outcome'];
      const honest = structuredClone(run);
      const judged = judgeInRun(honest, honest.cells[at] as never);
      cell.verdict = claimed as never;
      const wrong = contradictionIn(run);
      // A claim that its trials do not bear out is found.
      if (judged.verdict !== claimed) t.not(wrong, null);
    }),
    { numRuns: 200 },
  );
});

test('a crash whose logs cannot be recorded is a crash, and is not tried again; without one it is a failure around the guest', async (t) => {
  const dir = await tempDir(t);
  const end = { why: 'finished', lunBytesWritten: 1 } as const;
  await writeFile(join(dir, TRIAL_FILES.console), '[    1.000000] Linux version 6.1.0\n');
  t.like(await concludeUnreadable(plan, dir, end, {}, 'x'), { outcome: 'infra-error', interrupted: false });
  await writeFile(join(dir, TRIAL_FILES.console), await goldenLog('el7-957.27.2-usercopy-bug.log'));
  t.like(await concludeUnreadable(plan, dir, end, {}, 'x'), {
    ...{ outcome: 'other-crash', corrupted: true, interrupted: false },
    reason: 'it crashed, and its logs cannot be read: x',
  });
});

test('complaints that are counted only are complaints', async (t) => {
  const { console, guest } = survivor();
  const noise = Array.from(
    { length: 10_001 },
    (_, n) => `[    0.5] WARNING: CPU: 0 PID: 1 at a.c:${n} b+0x1/0x2`,
  );
  const dir = await tempDir(t);
  await writeFile(join(dir, TRIAL_FILES.console), `${noise.join('\n')}\n${console}`);
  await writeFile(join(dir, TRIAL_FILES.guest), guest);
  const { outcome, reason } = await concludeTrial(
    plan,
    dir,
    { why: 'finished', lunBytesWritten: 2 ** 40 },
    {},
  );
  t.is(outcome, 'warned', reason);
  t.regex(reason, /1 complaints more than are listed/);
});
