import test from 'ava';
import { classifyLog, type LogEvidence } from '../../outcome/classify.js';
import { decideOutcome, type Expected, type TrialEnd } from '../../outcome/decide.js';
import { FactReader } from '../../outcome/guest-facts.js';
import { GuestMarkers, LineSplitter } from '../../outcome/guest-markers.js';
import { goldenLog } from '../support/cli.js';

const TOKEN = 'c0ffee00';
const expected: Expected = {
  hardenedUsercopy: 'on',
  release: '6.1.0-56-amd64',
  module: { srcversion: 'ABC', buildId: 'f00d' },
  sectorSize: 512,
  blockSize: 4096,
  nomerges: 0,
  headerDigest: 'None',
  dataDigest: 'None',
  slubMinOrder: 3,
  slubMaxOrder: null,
  redZone: false,
  targetAddress: '127.0.0.1',
  onlineCpus: 1,
  allocationGroups: 128,
  writebackCentiseconds: 100,
  immediateData: 'Yes',
  cycles: 2,
  minMergedPerCycle: 64,
};
const facts = [
  'release 6.1.0-56-amd64',
  'cmdline console=ttyS0 hardened_usercopy=on slub_min_order=3',
  'module.srcversion ABC',
  'module.buildId f00d',
  'cpus.online 0',
  'cpus.possible 0',
  'slab kmalloc-512 3 64',
  'slab.redZone 0',
  'block.nomerges 0',
  'filesystem.sectorSize 512',
  'filesystem.blockSize 4096',
  'iscsi.header_digest 0',
  'iscsi.data_digest 0',
  'iscsi.immediate_data 1',
  'iscsi.persistent_address 127.0.0.1',
  'filesystem.allocationGroups 128',
  'filesystem.writebackCentiseconds 100',
];
const survivor = [
  '[    0.000000] Linux version 6.1.0-56-amd64',
  '[    5.000000] loopanic:c0ffee00: phase modules',
  '[    8.000000] loopanic:c0ffee00: phase workload',
  '[    9.000000] loopanic:c0ffee00: cycle 1 merged=130 bytes=4096000',
  '[   10.000000] loopanic:c0ffee00: cycle 2 merged=260 bytes=8192000',
  '[   10.000000] loopanic:c0ffee00: done cycles=2 merged=260 bytes=8192000',
];

function decide(
  lines: string[],
  end: TrialEnd = { why: 'finished' },
  guest = facts,
  built = true,
  elsewhere: LogEvidence[] = [],
) {
  const markers = new GuestMarkers(TOKEN);
  const text = `${lines.join('\n')}\n`;
  new LineSplitter((line) => markers.push(line)).push(Buffer.from(text));
  const reader = new FactReader(TOKEN);
  for (const fact of guest) reader.push(`@${TOKEN} ${fact}`);
  return decideOutcome(classifyLog(text), markers, reader.facts(built), expected, end, elsewhere);
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
    change('persistent_address 127.0.0.1', 'persistent_address 10.0.3.1'),
    /target address is 10\.0\.3\.1, not 127\.0\.0\.1/,
  ],
  [
    'slabs had red zones',
    change('slab.redZone 0', 'slab.redZone 1'),
    /red zones of kmalloc-512 is true, not false/,
  ],
  ['hardened_usercopy was off', change('usercopy=on', 'usercopy=off'), /hardened_usercopy is off, not on/],
  [
    'the last hardened_usercopy counts',
    change('usercopy=on', 'usercopy=on hardened_usercopy=off'),
    /is off, not on/,
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
  ['a digest was negotiated', change('data_digest 0', 'data_digest 1'), /data digest is CRC32C, not None/],
  ['merging was off', change('nomerges 0', 'nomerges 2'), /nomerges is 2, not 0/],
  [
    'metadata was written back later',
    change('writebackCentiseconds 100', 'writebackCentiseconds 3000'),
    /writeback interval is 3000, not 100/,
  ],
  ['two CPUs were online', change('online 0', 'online 0-1'), /online CPUs is 2, not 1/],
  ['nothing was read back', [], /nothing was read back/],
] as const)
  test(`no survivor if ${title}`, (t) => {
    const decision = decide(survivor, { why: 'finished' }, [...guest]);
    t.is(decision.outcome, 'infra-error');
    t.regex(decision.reason, why);
  });

test('no survivor if the kernel has no hardened usercopy', (t) => {
  t.regex(decide(survivor, { why: 'finished' }, facts, false).reason, /hardened_usercopy is absent, not on/);
});

test('no survivor if the workload did nothing, or too little', (t) => {
  const done = (said: string) =>
    decide([...survivor.slice(0, 3), `[   10.000000] loopanic:c0ffee00: done ${said}`]);
  t.is(done('cycles=0 merged=0 bytes=0').outcome, 'infra-error');
  t.is(done('cycles=20 merged=2000 bytes=0').outcome, 'infra-error');
  t.regex(
    done('cycles=20 merged=40 bytes=99999').reason,
    /40 merged two-sector writes in 20 cycles, not 64 a cycle/,
  );
  t.is(done('').outcome, 'infra-error');
  t.regex(done('cycles=1 merged=130 bytes=99999').reason, /ended after 1 of 2 cycles/);
});

test('no survivor if the end of the workload was not said, or said by something else', (t) => {
  t.is(decide(survivor.slice(0, -1)).outcome, 'infra-error');
  t.is(
    decide([...survivor.slice(0, -1), '[   10.0] loopanic:00000000: done cycles=2 merged=260 bytes=8192000'])
      .outcome,
    'infra-error',
  );
  t.is(
    decide([
      ...survivor.slice(0, -1),
      '[   10.000000] echo loopanic:c0ffee00: done cycles=2 merged=260 bytes=1',
    ]).outcome,
    'infra-error',
  );
});

test('a failed step is an infra-error with its words', (t) => {
  const failed = '[    9.000000] loopanic:c0ffee00: failed login: iscsistart (exit 7): no route';
  const decision = decide([...survivor.slice(0, 2), failed], { why: 'step-failed' });
  t.is(decision.outcome, 'infra-error');
  t.regex(decision.reason, /failed in the guest: login: iscsistart \(exit 7\)/);
});

test('silence is no-boot before the first marker and hung after it', (t) => {
  t.is(decide(survivor.slice(0, 1), { why: 'silent', seconds: 60 }).outcome, 'no-boot');
  t.is(decide([], { why: 'silent', seconds: 60 }).outcome, 'no-boot');
  t.is(decide(survivor.slice(0, 3), { why: 'silent', seconds: 60 }).outcome, 'hung');
  t.is(decide(survivor.slice(0, 4), { why: 'stalled', seconds: 180 }).outcome, 'hung');
});

test('a kernel without a root is no-boot', (t) => {
  const panic =
    '[    3.000000] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)';
  t.is(decide([panic], { why: 'crashed' }).outcome, 'no-boot');
});

test('warnings since the module was loaded make it warned; those of the boot do not', (t) => {
  const warning = '[    9.500000] WARNING: CPU: 0 PID: 1 at net/core/skbuff.c:1 skb_x+0x1/0x2';
  t.is(decide([...survivor.slice(0, 3), warning, ...survivor.slice(3)]).outcome, 'warned');
  t.is(decide([...survivor.slice(0, 1), warning, ...survivor.slice(1)]).outcome, 'survived');
  const error = '[    9.500000] blk_update_request: I/O error, dev sda, sector 1 op 0x1';
  t.is(decide([...survivor.slice(0, 3), error, ...survivor.slice(3)]).outcome, 'warned');
});

test('the console decides: a panic counts however the trial ended', async (t) => {
  const log = (await goldenLog('debian-6.1.192-unpatched-serial.log')).split('\n');
  const lines = [...survivor.slice(0, 3), ...log];
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
    [...survivor.slice(0, 3), ...log],
    { why: 'crashed' },
    change('buildId f00d', 'buildId beef'),
  );
  t.is(decision.outcome, 'infra-error');
});

test('a panic before all facts were told counts if the module was; without the module it does not', async (t) => {
  const log = (await goldenLog('debian-6.1.192-unpatched-serial.log')).split('\n');
  const early = (guest: string[]) =>
    decide([...survivor.slice(0, 2), ...log], { why: 'crashed' }, guest).outcome;
  t.is(early(['module.srcversion ABC', 'module.buildId f00d']), 'reproduced');
  t.is(early(['release 6.1.0-56-amd64']), 'infra-error');
  t.is(early([]), 'infra-error');
});

test('a kernel finding without a crash makes it warned', (t) => {
  for (const text of [
    'BUG: KASAN: slab-out-of-bounds in x',
    'INFO: task mount:99 blocked for more than 120 seconds.',
  ])
    t.is(
      decide([...survivor.slice(0, 3), `[    9.500000] ${text}`, ...survivor.slice(3)]).outcome,
      'warned',
      text,
    );
});

test('a workload that ends without a word is an infra-error', (t) => {
  const ended = '[   10.000000] loopanic:c0ffee00: ended';
  t.is(decide([...survivor.slice(0, 4), ended], { why: 'step-failed' }).outcome, 'infra-error');
  t.is(decide([...survivor, ended]).outcome, 'survived');
});

test('interrupted, left and dead guests are infra-errors', (t) => {
  t.regex(decide(survivor.slice(0, 3), { why: 'interrupted' }).reason, /interrupted in phase workload/);
  t.regex(decide(survivor.slice(0, 3), { why: 'left' }).reason, /left in phase workload/);
  t.regex(
    decide(survivor.slice(0, 3), { why: 'exited', words: 'oops' }).reason,
    /QEMU ended in phase workload: oops/,
  );
});

test('a step that fails after the kernel complained makes it warned, which is never tried again', (t) => {
  const failed = '[    9.900000] loopanic:c0ffee00: failed workload: umount /mnt (exit 32): target is busy';
  const warning = '[    9.500000] WARNING: CPU: 0 PID: 1 at net/core/skbuff.c:1 skb_splice_from_iter+0x1/0x2';
  const decision = decide([...survivor.slice(0, 3), warning, failed], { why: 'step-failed' });
  t.is(decision.outcome, 'warned');
  t.regex(decision.reason, /skb_splice_from_iter.*; then a step failed in the guest: workload: umount/);
  const early = [...survivor.slice(0, 1), warning, ...survivor.slice(1, 3), failed];
  t.is(decide(early, { why: 'step-failed' }).outcome, 'infra-error');
});

test('a guest that resets itself has crashed, without a report; before its first marker it has not booted', (t) => {
  const reset = { why: 'exited', words: '', code: 0 } as const;
  t.like(decide(survivor.slice(0, 4), reset), { outcome: 'other-crash', corrupted: true });
  t.is(decide(survivor.slice(0, 1), reset).outcome, 'no-boot');
  const ended = decide(survivor.slice(0, 4), { ...reset, words: 'qemu: terminating on signal 15' });
  t.is(ended.outcome, 'infra-error');
});

test('the guest with the target is part of the trial: its hang and its reset are no infra-errors', (t) => {
  const of = 'the target guest';
  t.like(decide(survivor.slice(0, 4), { why: 'silent', seconds: 60, of }), {
    outcome: 'hung',
    reason: 'no output of the target guest for 60 s in phase workload',
  });
  t.is(decide(survivor.slice(0, 4), { why: 'exited', words: '', code: 0, of }).outcome, 'other-crash');
});

test('what the guest with the target complained about counts', (t) => {
  const elsewhere = [{ line: 7, text: 'I/O error, dev vda, sector 1' }];
  t.is(decide(survivor, { why: 'finished' }, facts, true, elsewhere).outcome, 'warned');
});
