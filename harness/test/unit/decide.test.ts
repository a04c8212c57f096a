import test from 'ava';
import { FactReader } from '../../guest/guest-facts.js';
import { GuestMarkers, LineSplitter } from '../../guest/guest-markers.js';
import { classifyLines, classifyLog, type LogEvidence } from '../../log/classify.js';
import { parseLines } from '../../log/log-line.js';
import { decideOutcome, type Expected, type TrialEnd } from '../../outcome/decide.js';
import { goldenLog } from '../support/cli.js';

const TOKEN = 'c0ffee00';
const expected: Expected = {
  hardenedUsercopy: 'on',
  release: '6.1.0-56-amd64',
  module: { srcversion: 'ABC', buildId: 'f00d' },
  filesystem: 'xfs',
  sectorSize: 512,
  blockSize: 4096,
  nomerges: 0,
  transport: { headerDigest: 'None', dataDigest: 'None', immediateData: 'Yes', targetAddress: '127.0.0.1' },
  slubMinOrder: 3,
  slubMaxOrder: null,
  redZone: false,
  loopback: true,
  onlineCpus: 1,
  allocationGroups: 128,
  writebackCentiseconds: 100,
  cycles: 2,
  proof: [
    {
      key: 'merged',
      least: 64,
      leastInAll: 0,
      bytes: 0,
      words: 'merged two-sector writes',
      tooFew: 'it did not try the trigger',
    },
    {
      key: 'reads',
      least: 128,
      leastInAll: 0,
      bytes: 0,
      words: 'reads of AG headers from the LUN',
      tooFew: 'they were in memory',
    },
  ],
};
const facts = [
  'release 6.1.0-56-amd64',
  'cmdline console=ttyS0 hardened_usercopy=on slub_min_order=3',
  'module.srcversion ABC',
  'module.buildId f00d',
  'usercopy.checks 17',
  'session.localPorts A1B2',
  'cpus.online 0',
  'cpus.possible 0',
  'slab kmalloc-512 3 64',
  'slab.redZone 0',
  'block.nomerges 0',
  'filesystem.name xfs',
  'filesystem.sectorSize 512',
  'filesystem.blockSize 4096',
  'transport.headerDigest None',
  'transport.dataDigest None',
  'transport.immediateData Yes',
  'transport.targetAddress 127.0.0.1',
  'filesystem.allocationGroups 128',
  'filesystem.writebackCentiseconds 100',
];
const FINISHED: TrialEnd = { why: 'finished', lunBytesWritten: 8192000 };
/** Numbers the markers of a console as the guest does. */
const numbered = (lines: readonly string[]): string[] => {
  let count = 0;
  return lines.map((line) => line.replace(/loopanic:c0ffee00: /, () => `loopanic:c0ffee00:${++count}: `));
};
const survivor = [
  '[    0.000000] Linux version 6.1.0-56-amd64',
  '[    4.000000] loopanic:c0ffee00: up',
  '[    5.000000] loopanic:c0ffee00: phase modules',
  '[    6.000000] loopanic:c0ffee00: phase target',
  '[    7.000000] loopanic:c0ffee00: phase login',
  '[    7.500000] loopanic:c0ffee00: phase mount',
  '[    8.000000] loopanic:c0ffee00: phase workload',
  '[    9.000000] loopanic:c0ffee00: cycle 1 merged=130 reads=256 bytes=4096000',
  '[   10.000000] loopanic:c0ffee00: cycle 2 merged=260 reads=512 bytes=8192000',
  '[   10.000000] loopanic:c0ffee00: done cycles=2 merged=260 reads=512 bytes=8192000',
  '[   11.000000] loopanic:c0ffee00: ended',
];
/** Up to the beginning of the workload, and of its first cycle. */
const [BOOTED, LOADED, WORKING, CYCLED] = [1, 3, 7, 8];

/** What a guest sends of its kernel's log. */
function kernelLogOf(lines: readonly string[]): string[] {
  const records = lines.map((line) => line.replace(/^\[[ .\d]+\] /, ''));
  const from = records.findIndex((text) => text.startsWith('loopanic:'));
  const to = records.findIndex((text) => text.endsWith(': ended'));
  const sent = records.slice(Math.max(0, from), to < 0 ? records.length : to);
  return [
    ...sent.map((text, index) => `kmsg ${500 + index} 5 ${text}`),
    `kmsg.end 500 ${500 + sent.length - 1}`,
  ];
}

function decide(
  lines: string[],
  end: TrialEnd = FINISHED,
  guest: readonly string[] = facts,
  built = true,
  elsewhere: LogEvidence[] = [],
  { after = guest, records }: { after?: readonly string[]; records?: (sent: string[]) => string[] } = {},
) {
  const markers = new GuestMarkers(TOKEN);
  const console = numbered(lines);
  const sent = kernelLogOf(console);
  const text = `${console.map((line) => line.replace(/: ended$/, `: ended records=${sent.length - 1} last=${500 + sent.length - 2}`)).join('\n')}\n`;
  new LineSplitter((line) => markers.push(line)).push(Buffer.from(text));
  const reader = new FactReader(TOKEN);
  for (const fact of [...guest, 'again', ...after, ...(records?.(sent) ?? sent)])
    reader.push(`@${TOKEN} ${fact}`, 1);
  const log = classifyLog(text);
  const { kernelLog } = reader;
  const broken = parseLines(text).find((line) => line.broken);
  return decideOutcome(
    {
      log,
      markers,
      damage: broken ? `line ${broken.number}` : null,
      guest: reader.facts(built),
      after: reader.factsAfter(built),
      kernelLog,
      complaints: [
        ...log.warnings.filter(({ line }) => markers.moduleLine > 0 && line > markers.moduleLine),
        ...(markers.moduleLine > 0 && records ? classifyLines(kernelLog.lines).warnings : []),
        ...elsewhere,
      ],
    },
    expected,
    end,
  );
}
const change = (from: string, to: string): string[] => facts.map((fact) => fact.replace(from, to));

test('a survivor with proof has survived', (t) => {
  t.like(decide(survivor), {
    outcome: 'survived',
    reason: '2 cycles, 260 merged two-sector writes, no crash',
  });
});

for (const [title, guest, why] of [
  ['another module was loaded', change('buildId f00d', 'buildId beef'), /module build id is beef, not f00d/],
  ['the module cannot be told', facts.filter((f) => !f.startsWith('module.')), /module build id is unknown/],
  [
    'the target was elsewhere',
    change('targetAddress 127.0.0.1', 'targetAddress 10.0.3.1'),
    /target address is 10\.0\.3\.1, not 127\.0\.0\.1/,
  ],
  [
    'slabs had red zones',
    change('slab.redZone 0', 'slab.redZone 1'),
    /red zones of kmalloc-512 is true, not false/,
  ],
  ['hardened_usercopy was off', change('checks 17', 'checks 0'), /hardened_usercopy is off, not on/],
  [
    'nothing shows what hardened_usercopy does',
    facts.filter((f) => !f.startsWith('usercopy')),
    /hardened_usercopy is unknown, not on/,
  ],
  [
    'another kernel ran',
    change('release 6.1.0-56', 'release 6.1.0-55'),
    /kernel release is 6\.1\.0-55-amd64/,
  ],
  ['sectors were 4 KiB', change('sectorSize 512', 'sectorSize 4096'), /sector size is 4096, not 512/],
  [
    'slabs had no tail pages',
    change('kmalloc-512 3 64', 'kmalloc-512 0 8'),
    /slab order is 0, not at least 3/,
  ],
  ['slab geometry is unknown', facts.filter((f) => !f.startsWith('slab')), /slab order is unknown/],
  [
    'a digest was negotiated',
    change('dataDigest None', 'dataDigest CRC32C'),
    /data digest is CRC32C, not None/,
  ],
  ['merging was off', change('nomerges 0', 'nomerges 2'), /nomerges is 2, not 0/],
  [
    'metadata was written back later',
    change('writebackCentiseconds 100', 'writebackCentiseconds 3000'),
    /writeback interval is 3000, not 100/,
  ],
  ['the session has no port', facts.filter((f) => !f.startsWith('session')), /port is unknown/],
  ['two CPUs were online', change('online 0', 'online 0-1'), /online CPUs is 2, not 1/],
  ['nothing was read back', [], /nothing was read back/],
] as const)
  test(`no survivor if ${title}`, (t) => {
    const decision = decide(survivor, FINISHED, [...guest]);
    t.is(decision.outcome, 'infra-error');
    t.regex(decision.reason, why);
  });

test('no survivor if the kernel has no hardened usercopy', (t) => {
  t.regex(decide(survivor, FINISHED, facts, false).reason, /hardened_usercopy is absent, not on/);
});

test('no survivor if the workload did nothing, or too little in one of its cycles', (t) => {
  const cycles = (...said: string[]) =>
    decide([
      ...survivor.slice(0, WORKING),
      ...said.map((text, index) => `[   10.000000] loopanic:c0ffee00: cycle ${index + 1} ${text}`),
      `[   10.000000] loopanic:c0ffee00: done cycles=${said.length} ${said.at(-1)}`,
      ...survivor.slice(-1),
    ]);
  t.is(cycles('merged=130 reads=256 bytes=4096', 'merged=260 reads=512 bytes=8192').outcome, 'survived');
  t.regex(cycles('merged=0 reads=256 bytes=0', 'merged=0 reads=512 bytes=0').reason, /wrote nothing/);
  t.regex(cycles('merged=130 reads=256 bytes=4096').reason, /ended after 1 of 2 cycles/);
  // Enough on average, and too few in the second.
  t.regex(
    cycles('merged=493 reads=256 bytes=4096', 'merged=500 reads=512 bytes=8192').reason,
    /cycle 2 completed 7 merged two-sector writes, not 64/,
  );
  t.regex(
    cycles('merged=130 reads=0 bytes=4096', 'merged=260 reads=0 bytes=8192').reason,
    /cycle 1 completed 0 reads of AG headers from the LUN, not 128/,
  );
});

for (const [title, lines] of [
  ['its end was not said', survivor.slice(0, -1)],
  ['the workload did not say that it was done', [...survivor.slice(0, -2), ...survivor.slice(-1)]],
  ['something else said it', survivor.map((line) => line.replace('c0ffee00: done', '00000000: done'))],
  [
    'it stands behind other text',
    survivor.map((line) => line.replace('loopanic:c0ffee00: done', 'echo loopanic:c0ffee00: done')),
  ],
  ['there were no cycles', survivor.filter((line) => !line.includes(': cycle'))],
  ['a cycle is missing', survivor.filter((line) => !line.includes(': cycle 1'))],
  ['a phase is missing', survivor.filter((line) => !line.includes('phase login'))],
  [
    'phases run back',
    [...survivor.slice(0, CYCLED), '[    9.0] loopanic:c0ffee00: phase mount', ...survivor.slice(CYCLED)],
  ],
  [
    'the end says other numbers than the cycles',
    survivor.map((line) => line.replace('done cycles=2 merged=260', 'done cycles=2 merged=999')),
  ],
] as const)
  test(`no survivor if ${title}`, (t) => {
    t.is(decide([...lines]).outcome, 'infra-error');
  });

test('no survivor if a marker is missing or another message stands inside one of the kernel', (t) => {
  const markers = new GuestMarkers(TOKEN);
  const lines = numbered(survivor).filter((line) => !line.includes(':5: '));
  for (const line of parseLines(lines.join('\n'))) markers.push(line);
  t.regex(markers.faults[0] ?? '', /marker 6 follows marker 4/);
  const cut = [
    ...survivor.slice(0, CYCLED),
    '[    9.100000] XFS (sda): Mou[    9.200000] XFS (sda): Ending recovery',
    ...survivor.slice(CYCLED),
  ];
  t.regex(decide(cut).reason, /the console is not whole: line 9/);
  const glued = [...survivor.slice(0, CYCLED), '[  OK  ] Started Clea[    9.2] x', ...survivor.slice(CYCLED)];
  t.is(decide(glued).outcome, 'survived');
});

test("no survivor if the kernel's log did not arrive whole", (t) => {
  const records = (change: (sent: string[]) => string[]) =>
    decide(survivor, FINISHED, facts, true, [], { records: change });
  t.is(records((sent) => sent).outcome, 'survived');
  t.regex(records(() => []).reason, /it was not sent/);
  t.regex(records((sent) => sent.filter((_, at) => at !== 3)).reason, /record 504 follows record 502/);
  t.regex(records((sent) => sent.slice(0, -1)).reason, /it has no end/);
  t.regex(records((sent) => sent.slice(1)).reason, /records 501 to 508 arrived, not 500 to 508/);
  t.regex(records((sent) => ['kmsg.lost', ...sent]).reason, /had overwritten records/);
  t.regex(records((sent) => [...sent.slice(0, 4), 'kmsg 504 5', ...sent.slice(5)]).reason, /cannot be read/);
  t.regex(
    records((sent) => sent.map((line) => line.replace('cycle 2 merged=260', 'cycle 2 merged=261'))).reason,
    /not whole/,
  );
});

test("what only the kernel's own log has makes it warned", (t) => {
  const withError = (sent: string[]): string[] => {
    const more = [
      ...sent.slice(0, 5),
      'kmsg 505 6  connection1:0: detected conn error (1020)',
      ...sent.slice(5),
    ];
    let number = 499;
    return more.map((line) =>
      line.startsWith('kmsg ')
        ? line.replace(/^kmsg \d+/, () => `kmsg ${++number}`)
        : `kmsg.end 500 ${number}`,
    );
  };
  const decision = decide(survivor, FINISHED, facts, true, [], { records: withError });
  t.is(decision.outcome, 'warned');
  t.regex(decision.reason, /detected conn error \(1020\)/);
});

test('a guest that is another one after its workload has not survived; one whose session was recovered is warned', (t) => {
  const after = (from: string, to: string) =>
    decide(survivor, FINISHED, facts, true, [], { after: change(from, to) });
  t.regex(after('nomerges 0', 'nomerges 2').reason, /after its workload: nomerges is 2, not 0/);
  t.is(after('checks 17', 'checks 0').outcome, 'infra-error');
  t.is(after('session.localPorts A1B2', 'session.localPorts A1B3').outcome, 'warned');
  t.regex(
    decide(survivor, FINISHED, facts, true, [], { after: [] }).reason,
    /nothing was read back from the guest after its workload/,
  );
});

test('a failed step is an infra-error with its words', (t) => {
  const failed = '[    9.000000] loopanic:c0ffee00: failed login: iscsistart (exit 7): no route';
  const decision = decide([...survivor.slice(0, LOADED), failed], { why: 'step-failed' });
  t.is(decision.outcome, 'infra-error');
  t.regex(decision.reason, /failed in the guest: login: iscsistart \(exit 7\)/);
});

test('silence is no-boot before the first marker and hung after it', (t) => {
  t.is(decide(survivor.slice(0, BOOTED), { why: 'silent', seconds: 60 }).outcome, 'no-boot');
  t.is(decide([], { why: 'silent', seconds: 60 }).outcome, 'no-boot');
  t.is(decide(survivor.slice(0, WORKING), { why: 'silent', seconds: 60 }).outcome, 'hung');
  t.is(decide(survivor.slice(0, CYCLED), { why: 'stalled', seconds: 180 }).outcome, 'hung');
});

test('a kernel without a root is no-boot', (t) => {
  const panic =
    '[    3.000000] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)';
  t.is(decide([panic], { why: 'crashed' }).outcome, 'no-boot');
});

test('warnings since the module was loaded make it warned; those of the boot do not', (t) => {
  const warning = '[    9.500000] WARNING: CPU: 0 PID: 1 at net/core/skbuff.c:1 skb_x+0x1/0x2';
  t.is(decide([...survivor.slice(0, WORKING), warning, ...survivor.slice(WORKING)]).outcome, 'warned');
  t.is(decide([...survivor.slice(0, BOOTED), warning, ...survivor.slice(BOOTED)]).outcome, 'survived');
  const error = '[    9.500000] blk_update_request: I/O error, dev sda, sector 1 op 0x1';
  t.is(decide([...survivor.slice(0, WORKING), error, ...survivor.slice(WORKING)]).outcome, 'warned');
});

test('the console decides: a panic counts however the trial ended', async (t) => {
  const log = (await goldenLog('debian-6.1.192-unpatched-serial.log')).split('\n');
  const lines = [...survivor.slice(0, WORKING), ...log];
  for (const end of [
    { why: 'crashed' },
    { why: 'exited', words: '' },
    { why: 'silent', seconds: 60 },
    { why: 'interrupted' },
  ] as TrialEnd[])
    t.is(decide(lines, end).outcome, 'reproduced', end.why);
});

test('a panic of a guest that was not as asked proves nothing about the module', async (t) => {
  const log = (await goldenLog('debian-6.1.192-unpatched-serial.log')).split('\n');
  const decision = decide(
    [...survivor.slice(0, WORKING), ...log],
    { why: 'crashed' },
    change('buildId f00d', 'buildId beef'),
  );
  t.like(decision, { outcome: 'other-crash', corrupted: true });
  t.regex(decision.reason, /it panicked as sought, but the guest was not as asked: module build id is beef/);
});

test('a panic before all facts were told counts if the module was; without the module it does not', async (t) => {
  const log = (await goldenLog('debian-6.1.192-unpatched-serial.log')).split('\n');
  const early = (guest: string[]) =>
    decide([...survivor.slice(0, LOADED), ...log], { why: 'crashed' }, guest).outcome;
  t.is(early(['module.srcversion ABC', 'module.buildId f00d']), 'reproduced');
  t.is(early(['release 6.1.0-56-amd64']), 'other-crash');
  t.is(early([]), 'other-crash');
});

test('a kernel finding without a crash makes it warned', (t) => {
  for (const text of [
    'BUG: KASAN: slab-out-of-bounds in x',
    'INFO: task mount:99 blocked for more than 120 seconds.',
  ])
    t.is(
      decide([...survivor.slice(0, WORKING), `[    9.500000] ${text}`, ...survivor.slice(WORKING)]).outcome,
      'warned',
      text,
    );
});

test('a workload that ends without a word is an infra-error', (t) => {
  const ended = '[   10.000000] loopanic:c0ffee00: ended';
  t.is(decide([...survivor.slice(0, CYCLED), ended], { why: 'step-failed' }).outcome, 'infra-error');
});

test('what a guest says that it wrote must have come to the disk of the LUN', (t) => {
  const reason = (lunBytesWritten: number | null | undefined): string | null => {
    const end = {
      why: 'finished',
      ...(lunBytesWritten === undefined ? {} : { lunBytesWritten }),
    } as TrialEnd;
    const { outcome, reason } = decide(survivor, end);
    return outcome === 'survived' ? null : reason;
  };
  t.is(reason(8192000), null);
  t.regex(reason(0) ?? '', /says that it wrote 8192000 bytes to the LUN, whose disk received 0/);
  t.regex(reason(800000) ?? '', /whose disk received 800000/);
  t.regex(reason(undefined) ?? '', /was not saved/);
  // Where the LUN is in the guest's own memory, QEMU has no disk of it.
  t.is(reason(null), null);
});

test('whatever a kernel complained about is not tried away', (t) => {
  const warning = '[    9.500000] WARNING: CPU: 0 PID: 1 at net/core/skbuff.c:1 skb_x+0x1/0x2';
  const until = [...survivor.slice(0, CYCLED), warning];
  for (const end of [
    { why: 'exited', words: 'killed', code: null },
    { why: 'interrupted' },
    { why: 'cut-off' },
    { why: 'left' },
    { why: 'disk-full', freeMiB: 0 },
    { why: 'flooded', mib: 64 },
    FINISHED,
  ] as TrialEnd[])
    t.is(decide(until, end).outcome, 'warned', end.why);
  t.is(decide(until, { why: 'silent', seconds: 9 }).outcome, 'hung');
  t.regex(decide(until, { why: 'silent', seconds: 9 }).reason, /before: WARNING/);
});

test('interrupted, left and dead guests are infra-errors', (t) => {
  t.regex(decide(survivor.slice(0, WORKING), { why: 'interrupted' }).reason, /interrupted in phase workload/);
  t.regex(decide(survivor.slice(0, WORKING), { why: 'left' }).reason, /left in phase workload/);
  t.regex(
    decide(survivor.slice(0, WORKING), { why: 'exited', words: 'oops' }).reason,
    /QEMU ended in phase workload: oops/,
  );
});

test('a step that fails after the kernel complained makes it warned, which is never tried again', (t) => {
  const failed = '[    9.900000] loopanic:c0ffee00: failed workload: umount /mnt (exit 32): target is busy';
  const warning = '[    9.500000] WARNING: CPU: 0 PID: 1 at net/core/skbuff.c:1 skb_splice_from_iter+0x1/0x2';
  const decision = decide([...survivor.slice(0, WORKING), warning, failed], { why: 'step-failed' });
  t.is(decision.outcome, 'warned');
  t.regex(decision.reason, /skb_splice_from_iter.*; then a step failed in the guest: workload: umount/);
  const early = [...survivor.slice(0, BOOTED), warning, ...survivor.slice(BOOTED, WORKING), failed];
  t.is(decide(early, { why: 'step-failed' }).outcome, 'infra-error');
});

test('a guest that resets itself has crashed, without a report; before its first marker it has not booted', (t) => {
  const reset = { why: 'exited', words: '', code: 0 } as const;
  t.like(decide(survivor.slice(0, CYCLED), reset), { outcome: 'other-crash', corrupted: true });
  t.is(decide(survivor.slice(0, BOOTED), reset).outcome, 'no-boot');
  const ended = decide(survivor.slice(0, CYCLED), { ...reset, words: 'qemu: terminating on signal 15' });
  t.is(ended.outcome, 'infra-error');
});

test('the guest with the target is part of the trial: its hang and its reset are no infra-errors', (t) => {
  const of = 'the target guest';
  t.like(decide(survivor.slice(0, CYCLED), { why: 'silent', seconds: 60, of }), {
    outcome: 'hung',
    reason: 'no output of the target guest for 60 s in phase workload',
  });
  t.is(decide(survivor.slice(0, CYCLED), { why: 'exited', words: '', code: 0, of }).outcome, 'other-crash');
});

test('what the guest with the target complained about counts', (t) => {
  const elsewhere = [{ line: 7, text: 'I/O error, dev vda, sector 1' }];
  t.is(decide(survivor, FINISHED, facts, true, elsewhere).outcome, 'warned');
});
