import { join } from 'node:path';
import test from 'ava';
import { packageRoot } from '../../base/paths.js';
import { soughtAmong } from '../../bug/sought.js';
import { classifyLog } from '../../log/classify.js';
import { goldenLog, loopanic } from '../support/cli.js';

const EL7 = 'el7-957.27.2-usercopy-bug.log';
const DEBIAN = 'debian-6.1.192-unpatched-serial.log';

/** The log without its lines from the first that matches on. */
const cutBefore = (log: string, pattern: RegExp): string => {
  const lines = log.split('\n');
  return `${lines
    .slice(
      0,
      lines.findIndex((line) => pattern.test(line)),
    )
    .join('\n')}\n`;
};
const replaceLine = (log: string, pattern: RegExp, by: (line: string) => string[]): string =>
  log
    .split('\n')
    .flatMap((line) => (pattern.test(line) ? by(line) : [line]))
    .join('\n');

test('the report of the el7 panic, through the CLI', async (t) => {
  const result = await loopanic(['classify', join('harness/test/logs', EL7), '--json'], { cwd: packageRoot });
  t.is(result.code, 0);
  const verdict = JSON.parse(result.stdout);
  t.is(verdict.outcome, 'reproduced');
  t.is(verdict.kernel, '3.10.0-957.27.2.el7.x86_64');
  t.like(verdict.signature, {
    kind: 'usercopy',
    direction: 'exposure',
    address: 'ffff9cba0bf75400',
    object: 'kmalloc-512',
    length: 1024,
    objectSize: 512,
    objects: 2,
    bug: { file: 'mm/usercopy.c', line: 72 },
    comm: 'tgtd',
    pid: 28054,
    cpu: 9,
    tainted: '',
  });
  t.deepEqual(verdict.signature.stack.slice(0, 4), [
    'memcpy_toiovec',
    'skb_copy_datagram_iovec',
    'tcp_recvmsg',
    'inet_recvmsg',
  ]);
});

test('the Debian reproduction, with firmware noise and user output around it, from stdin', async (t) => {
  const result = await loopanic(['classify', '-', '--json'], { input: await goldenLog(DEBIAN) });
  t.is(result.code, 0);
  const { outcome, signature, corrupted } = JSON.parse(result.stdout);
  t.is(outcome, 'reproduced');
  t.false(corrupted);
  t.like(signature, {
    object: 'kmalloc-512',
    length: 1024,
    objects: 2,
    bug: { file: 'mm/usercopy.c', line: 101 },
    comm: 'tgtd',
    pid: 123,
    cpu: 1,
    kernel: '6.1.0-56-amd64',
    tainted: 'G OE',
  });
  t.false('address' in signature);
  t.deepEqual(signature.stack.slice(0, 3), [
    '__check_heap_object',
    '__check_object_size',
    'simple_copy_to_iter',
  ]);
  t.false(signature.stack.includes('skb_free_datagram'), 'guessed entries ("? ") are not the stack');
});

test('evidence names the lines of the log', async (t) => {
  const log = await goldenLog(EL7);
  const { evidence } = classifyLog(log);
  t.true(evidence.length >= 4);
  for (const { line, text } of evidence) t.true(log.split('\n')[line - 1]?.includes(text));
});

for (const [file, why] of [
  ['decoy-dhclient-kmalloc-64.log', /the reader was dhclient/],
  ['decoy-put-cmsg-unix-dgram.log', /tcp_recvmsg is not in the stack/],
] as const)
  test(`${file}: same file and line, but not the sought panic`, async (t) => {
    const verdict = classifyLog(await goldenLog(file));
    t.is(verdict.outcome, 'other-crash');
    t.false(verdict.corrupted);
    t.regex(verdict.reason, why);
    t.is(verdict.signature?.bug?.line, 72);
  });

test('the signature is a rule, not a literal', async (t) => {
  const log = await goldenLog(EL7);
  const outcome = (from: string, to: string, receiver?: string): string =>
    classifyLog(log.replaceAll(from, to), soughtAmong({ bug: 'iscsi-slab', receiver })).outcome;
  t.is(outcome('(kmalloc-512) (1024 bytes)', '(kmalloc-1024) (2048 bytes)'), 'reproduced');
  t.is(outcome('(kmalloc-512) (1024 bytes)', '(kmalloc-512) (1536 bytes)'), 'reproduced');
  t.is(outcome('(kmalloc-512) (1024 bytes)', '(kmalloc-512) (512 bytes)'), 'other-crash');
  t.is(outcome('(kmalloc-512) (1024 bytes)', '(kmalloc-512) (1000 bytes)'), 'other-crash');
  t.is(outcome('(kmalloc-512) (1024 bytes)', '(dentry) (1024 bytes)'), 'other-crash');
  t.is(outcome('exposure attempt detected from', 'overwrite attempt detected to'), 'other-crash');
  t.is(outcome('Comm: tgtd', 'Comm: nbd-server'), 'other-crash');
  t.is(outcome('Comm: tgtd', 'Comm: nbd-server', 'nbd-server'), 'reproduced');
});

test('a log that stops in the middle of the panic', async (t) => {
  for (const name of [EL7, DEBIAN]) {
    const log = await goldenLog(name);
    for (const pattern of [
      /kernel BUG at/,
      /CPU: \d+ PID/,
      /Call Trace/,
      /skb_copy_datagram_iter|tcp_recvmsg/,
    ]) {
      const verdict = classifyLog(cutBefore(log, pattern));
      t.is(verdict.outcome, 'other-crash', `${name} up to ${pattern}`);
      t.true(verdict.corrupted, `${name} up to ${pattern}`);
    }
    // Enough is left once tcp_recvmsg was printed.
    t.is(classifyLog(cutBefore(log, /inet_recvmsg/)).outcome, 'reproduced', name);
    const before = classifyLog(cutBefore(log, /usercopy:/));
    t.is(before.outcome, 'no-crash');
  }
});

test('a panic line cut in the middle', async (t) => {
  const log = await goldenLog(EL7);
  const verdict = classifyLog(log.slice(0, log.indexOf(' (1024 bytes)')));
  t.is(verdict.outcome, 'other-crash');
  t.true(verdict.corrupted);
});

test("another CPU's warning in the middle of the panic makes it unreadable, not reproduced", async (t) => {
  const warning = [
    '[   76.253000] WARNING: CPU: 0 PID: 77 at kernel/softirq.c:376 __local_bh_enable_ip+0x6a/0x80',
    '[   76.253100] CPU: 0 PID: 77 Comm: kworker/0:1 Not tainted 6.1.0-56-amd64 #1  Debian 6.1.192-2',
    '[   76.253200] Call Trace:',
    '[   76.253300]  tcp_recvmsg+0x83/0x200',
  ];
  const verdict = classifyLog(
    replaceLine(await goldenLog(DEBIAN), /invalid opcode/, (line) => [line, ...warning]),
  );
  t.is(verdict.outcome, 'other-crash');
  t.true(verdict.corrupted);
});

test("two CPUs' characters in one line make it unreadable", async (t) => {
  const log = (await goldenLog(DEBIAN)).replace(
    '[   76.254963] CPU: 1 PID: 123 Comm: tgtd',
    '[   76.254963] CPU: 1 PID: 12[   76.254964] XFS (sda): Mounting V5 Filesystem',
  );
  const verdict = classifyLog(log);
  t.is(verdict.outcome, 'other-crash');
  t.true(verdict.corrupted);
});

test('lockup messages long before the panic, which have no end of their own, do not spoil it', async (t) => {
  for (const text of [
    'watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [tgtd:123]',
    'rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:',
  ]) {
    const verdict = classifyLog(`[   16.000000] ${text}\n${await goldenLog(DEBIAN)}`);
    t.is(verdict.outcome, 'reproduced', text);
    t.is(verdict.warnings.length, 1);
  }
});

test('a warning before the panic does not hide it', async (t) => {
  const verdict = classifyLog((await goldenLog('boot-with-warnings.log')) + (await goldenLog(DEBIAN)));
  t.is(verdict.outcome, 'reproduced');
  t.is(verdict.warnings.length, 1);
});

test('an ordinary boot with warnings is no crash, and never "survived"', async (t) => {
  const path = 'harness/test/logs/boot-with-warnings.log';
  const result = await loopanic(['classify', path, '--json'], { cwd: packageRoot });
  t.is(result.code, 0);
  const verdict = JSON.parse(result.stdout);
  t.is(verdict.outcome, 'no-crash');
  t.is(verdict.kernel, '6.1.0-56-amd64');
  t.is(verdict.warnings.length, 1, 'the shutdown that the trigger asks for is not a finding');
  t.regex(verdict.warnings[0].text, /^WARNING: CPU: 0 PID: 1 at arch/);
});

for (const [title, lines] of Object.entries({
  'sysrq crash': [
    '[   20.1] x',
    '[   20.100000] sysrq: Trigger a crash',
    '[   20.100100] Kernel panic - not syncing: sysrq triggered crash',
  ],
  'null pointer': [
    '[   20.100000] BUG: kernel NULL pointer dereference, address: 0000000000000000',
    '[   20.100100] Oops: 0002 [#1] PREEMPT SMP NOPTI',
  ],
  'other BUG': [
    '[   20.100000] kernel BUG at fs/xfs/xfs_buf.c:1234!',
    '[   20.100100] invalid opcode: 0000 [#1] SMP',
  ],
}))
  test(`other crash: ${title}`, (t) => {
    const verdict = classifyLog(`${lines.join('\n')}\n`);
    t.is(verdict.outcome, 'other-crash');
    t.is(verdict.signature, null);
  });

test('logs as dmesg, journal and caller ids print them', async (t) => {
  const log = await goldenLog(EL7);
  const journal = log.replace(/^\[/gm, 'Nov 22 03:10:11 storage01 kernel: [');
  t.is(classifyLog(journal).outcome, 'reproduced');
  t.is(classifyLog(log.replace(/^(\[\s*\d+\.\d+\])/gm, '$1[T28054]')).outcome, 'reproduced');
  t.is(classifyLog(log.replace(/^\[\s*\d+\.\d+\] /gm, '')).outcome, 'reproduced');
  for (const prefix of [
    'Nov 22 03:10:11 storage01 kernel: ',
    '2026-11-22T03:10:11+0100 storage01 kernel: ',
    '[Sun Nov 22 03:10:11 2026] ',
    'kern  :emerg : [85774.558604] ',
  ])
    t.is(classifyLog(log.replace(/^\[\s*\d+\.\d+\] /gm, prefix)).outcome, 'reproduced', prefix);
  const oops =
    'Nov 22 03:10:11 host kernel: BUG: unable to handle kernel NULL pointer dereference at 0000000000000008';
  t.is(classifyLog(oops).outcome, 'other-crash');
  t.is(classifyLog(log.replace(/^/gm, '<0>')).outcome, 'reproduced');
  t.is(classifyLog(log.replaceAll('\n', '\r\n')).outcome, 'reproduced');
});

test('characters that a serial port doubled in the time stamps do not damage the report', async (t) => {
  const log = (await goldenLog(DEBIAN))
    .replace('[   76.256050] Code', '[[   76.256050] Code')
    .replace('[   76.258311] Call Trace', '[   76.258311]] Call Trace')
    .replace('[   76.258311]  tcp_recvmsg+', '[   76..258311]  tcp_recvmsg+')
    .replace('[   76.258311]  inet_recvmsg+', '[   76.2583111]  inet_recvmsg+');
  const verdict = classifyLog(log);
  t.is(verdict.outcome, 'reproduced');
  t.true(verdict.signature?.stack.includes('inet_recvmsg'));
});

test('an unreadable log is bad input', async (t) => {
  const result = await loopanic(['classify', 'no/such.log']);
  t.is(result.code, 2);
  t.regex(result.stderr, /^loopanic: no\/such\.log: cannot be read/);
});

test('an empty log shows no crash', (t) => {
  t.is(classifyLog('').outcome, 'no-crash');
});
