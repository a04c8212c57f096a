import test from 'ava';
import type { Outcome } from '../../outcome/outcome-schema.js';
import { FaultBench } from '../support/fault-bench.js';

// Real guests in which something goes wrong that is no panic of the sought kind. Each workload is one cycle of ag-sweep's kind, with the
// fault in it.
const CYCLES = 3;

/** Directories over all groups and a sync, in each cycle; `fault` is shell, run in the last cycle between the two. */
const workload = (fault: string, before = ''): string => `#!/bin/sh
. /loopanic/lib.sh
work_begin
${before}
cycle=0
while [ "$cycle" -lt "$CYCLES" ]; do
    cycle=$((cycle + 1))
    need perl /loopanic/workload/sweep.pl /mnt/cycle$cycle "$ALLOCATION_GROUPS"
    if [ "$cycle" = "$CYCLES" ]; then
        :
${fault}
    fi
    sync
    work_cycle "$cycle"
done
work_done "$cycle"
`;

const faults: [
  name: string,
  phase: string,
  outcomes: Outcome[],
  reason: RegExp,
  fault: string,
  before?: string,
][] = [
  [
    'the LUN is write-protected before the last sync',
    'workload',
    ['warned'],
    /error|XFS|shut down/i,
    'need sync; sleep 1; need mkdir /mnt/last; need tgtadm --op update --mode logicalunit --tid 1 --lun 1 --params readonly=1; sync; sleep 2',
  ],
  [
    'the target is killed before the last sync',
    'workload',
    ['warned', 'hung', 'infra-error'],
    /./,
    'kill -9 $(pidof tgtd); (sync &) ; sleep 3',
  ],
  [
    'every connection is dropped by the target',
    'workload',
    ['warned', 'hung', 'infra-error'],
    /./,
    "tgtadm --op show --mode conn --tid 1 | awk '/Session/{s=$2} /Connection/{c=$2; print s, c}' | while read s c; do tgtadm --op delete --mode conn --tid 1 --sid $s --cid $c; done; sleep 2",
  ],
  [
    'the network of the guest is gone',
    'workload',
    ['hung', 'warned', 'infra-error'],
    /./,
    'need ip link set lo down; (sync &); sleep 2',
  ],
  [
    'the file system is full',
    'workload',
    ['infra-error', 'warned'],
    /./,
    'for size in 4g 2g 1g 512m 256m 128m 64m 32m 16m; do xfs_io -f -c "falloc 0 $size" /mnt/fill$size; done; need dd if=/dev/zero of=/mnt/rest bs=1M count=2000',
  ],
  [
    'XFS is shut down in between',
    'workload',
    ['infra-error', 'warned'],
    /./,
    "need xfs_io -x -c 'shutdown' /mnt; need mkdir /mnt/x",
  ],
  [
    'the guest runs out of memory',
    'workload',
    ['warned'],
    /Out of memory|oom|Killed process/i,
    'perl -e \'my @a; push @a, "x" x 1e7 while 1\' || true',
  ],
  ['the workload hangs', 'workload', ['hung'], /no progress/, 'while :; do sleep 1000; done'],
  [
    'the guest is silent',
    'workload',
    ['hung'],
    /no output/,
    'kill -STOP -1 2>/dev/null; while :; do :; done',
  ],
  [
    'the guest powers itself off',
    'workload',
    ['other-crash'],
    /powered itself off/,
    'echo o >/proc/sysrq-trigger; sleep 1000',
  ],
  [
    'the guest resets itself',
    'workload',
    ['other-crash'],
    /reset/,
    'echo b >/proc/sysrq-trigger; sleep 1000',
  ],
  ['a panic of another kind', 'workload', ['other-crash'], /./, 'echo c >/proc/sysrq-trigger; sleep 1000'],
  [
    'the kernel warns between two lines of chatter, and I/O fails',
    'workload',
    ['warned'],
    /skb_splice_from_iter/,
    'i=0; while [ $i -lt 60 ]; do i=$((i + 1)); echo "<5>filler $i" >/dev/kmsg; done; echo \'<4>WARNING: CPU: 0 PID: 9 at net/core/skbuff.c:6970 skb_splice_from_iter+0x139/0x370\' >/dev/kmsg',
  ],
  [
    'a message that the console never shows',
    'workload',
    ['warned'],
    /detected conn error/,
    "echo '<6> connection1:0: detected conn error (1020)' >/dev/kmsg",
  ],
  [
    'the merging of requests is switched off',
    'workload',
    ['infra-error'],
    /after its workload: nomerges is 2, not 0/,
    'echo 2 >/sys/block/sda/queue/nomerges',
  ],
  [
    'the workload stops early',
    'workload',
    ['infra-error'],
    /ended after 2 of 3 cycles/,
    'work_done 2; exit 0',
  ],
  [
    'the workload skips a marker',
    'workload',
    ['infra-error'],
    /marker \d+ follows marker/,
    'echo 90 >/loopanic/said',
  ],
  [
    'the log of the kernel is cleared of its beginning',
    'workload',
    ['infra-error', 'survived'],
    /./,
    'dmesg -c >/dev/null',
  ],
];

/** A smaller file system, and the workload of these tests. */
const small = (text: string): string =>
  text
    .replace(
      /workload:\n(?: {2}.*\n)*/,
      `workload:\n  name: fault\n  cycles: ${CYCLES}\n  minMergedPerCycle: 0\n`,
    )
    .replace('allocationGroups: 128', 'allocationGroups: 64')
    .replace('sizeGiB: 16', 'sizeGiB: 8');

for (const [name, phase, outcomes, reason, fault, before] of faults)
  test(name, (t) =>
    FaultBench.with(t, async (bench) => {
      await bench.workload('fault', workload(`        ${fault}`, before));
      const scenario = await bench.scenario(
        { silence: 8, stall: outcomes.includes('hung') ? 20 : 120 },
        small,
      );
      const { trial, run } = await bench.run(scenario, '--module', 'stock');
      t.true(outcomes.includes(trial.outcome), `${trial.outcome}: ${trial.reason}`);
      t.regex(trial.reason, reason);
      await bench.record(
        `guest: ${name}`,
        phase,
        `${trial.outcome}: ${trial.reason.replaceAll('|', '/').slice(0, 90)}`,
      );
      if (!outcomes.includes('survived')) {
        await bench.nothingGreen();
        t.not(run.cells[0]?.verdict, 'clean');
      }
    }),
  );

test('the clock of the guest jumps both ways: the outcome is as without', (t) =>
  FaultBench.with(t, async (bench) => {
    await bench.workload('fault', workload('        date -s "2031-01-01"; date -s "2011-01-01"'));
    const { trial } = await bench.run(
      await bench.scenario({ silence: 8, stall: 20 }, small),
      '--module',
      'stock',
    );
    t.is(trial.outcome, 'survived', trial.reason);
    await bench.record('guest: its clock jumps', 'workload', 'survived, as without');
  }));

test('the same workload without a fault survives', (t) =>
  FaultBench.with(t, async (bench) => {
    await bench.workload('fault', workload('        :'));
    const { trial } = await bench.run(
      await bench.scenario({ silence: 8, stall: 20 }, small),
      '--module',
      'stock',
    );
    t.is(trial.outcome, 'survived', trial.reason);
  }));
