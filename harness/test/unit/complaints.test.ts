import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { packageRoot } from '../../base/paths.js';
import { classifyLog } from '../../log/classify.js';
import { COMPLAINTS, complaintIn, isComplaint } from '../../log/complaints.js';
import { parseLines } from '../../log/log-line.js';
import { goldenLog } from '../support/cli.js';

/** As kernels print them. */
const COMPLAINED = [
  'critical target error, dev sda, sector 16785142 op 0x1:(WRITE) flags 0x29800 phys_seg 1 prio class 2',
  'blk_update_request: critical target error, dev sda, sector 0 op 0x1:(WRITE) flags 0x800 phys_seg 1 prio class 0',
  'end_request: I/O error, dev sda, sector 2048',
  'end_request: critical target error, dev sdb, sector 63',
  'critical medium error, dev sda, sector 1 op 0x1:(WRITE) flags 0x0',
  'critical nexus error, dev sda, sector 1',
  'recoverable transport error, dev sda, sector 1 op 0x1:(WRITE)',
  'device offline error, dev sda, sector 1 op 0x1:(WRITE)',
  'timeout error, dev sda, sector 1 op 0x1:(WRITE)',
  'protection error, dev sda, sector 1',
  'critical space allocation error, dev vda, sector 1',
  'Buffer I/O error on dev sda, logical block 0, lost async page write',
  'Buffer I/O error on device sda, logical block 0',
  'lost page write due to I/O error on sda',
  'XFS (sda): log I/O error -5',
  'XFS (sda): log I/O error -121',
  'XFS (sda): Filesystem has been shut down due to log error (0x2).',
  'XFS (sda): Log I/O Error (0x2) detected at xlog_ioend_work+0x64/0x90 [xfs] (fs/xfs/xfs_log.c:1378).  Shutting down filesystem.',
  'XFS (sda): Log I/O Error Detected.  Shutting down filesystem',
  'XFS (sda): metadata I/O error in "xfs_buf_ioend+0x1/0x2 [xfs]" at daddr 0x1 len 1 error 121',
  'XFS (sda): metadata I/O error: block 0x2 ("xlog_iodone") error 5 numblks 64',
  'XFS (sda): Failing async write on buffer block 0x8c0008. Retrying async write.',
  'XFS (sda): Metadata CRC error detected at xfs_agf_read_verify+0x8c/0xf0 [xfs], xfs_agf block 0x1 ',
  'XFS (sda): Metadata corruption detected at xfs_agi_verify+0x1/0x2 [xfs], xfs_agi block 0x2 ',
  'XFS (sda): Corruption of in-memory data (0x8) detected at xfs_defer_finish_noroll+0x1/0x2 [xfs] (fs/xfs/libxfs/xfs_defer.c:1).  Shutting down filesystem.',
  'XFS (sda): Internal error XFS_WANT_CORRUPTED_GOTO at line 1 of file fs/xfs/libxfs/xfs_alloc.c.',
  'XFS (sda): Unmount and run xfs_repair',
  'XFS (sda): xfs_do_force_shutdown(0x8) called from line 1 of file fs/xfs/xfs_trans.c.',
  'XFS (sda): xfs_log_force: error -5 returned.',
  'XFS: Assertion failed: 0, file: fs/xfs/xfs_trans.c, line: 1',
  'XFS: kworker/0:1(9) possible memory allocation deadlock size 512 in kmem_alloc (mode:0x2400240)',
  'sda: writeback error on inode 18612364, offset 0, sector 18612520',
  'EXT4-fs error (device vdb): ext4_find_entry:1612: inode #2: comm ls: reading directory lblock 0',
  'EXT4-fs (vdb): Remounting filesystem read-only',
  'Aborting journal on device vdb-8.',
  'VFS: Busy inodes after unmount of sda. Self-destruct in 5 seconds.',
  ' connection1:0: detected conn error (1020)',
  ' session1: session recovery timed out after 120 secs',
  ' connection1:0: ping timeout of 5 secs expired, recv timeout 5, last rx 4294, last ping 4295, now 4296',
  'sd 0:0:0:1: rejecting I/O to offline device',
  'sd 0:0:0:1: Device offlined - not ready after error recovery',
  'sd 0:0:0:1: [sda] tag#12 FAILED Result: hostbyte=DID_OK driverbyte=DRIVER_OK cmd_age=0s',
  'sd 0:0:0:1: [sda] tag#12 Sense Key : Data Protect [current] ',
  'sd 2:0:0:1: [sda] Write Protect is on',
  'nvme nvme0: starting error recovery',
  'nvme nvme0: Reconnecting in 10 seconds...',
  'nvme nvme0: I/O 12 QID 1 timeout',
  'nvme nvme0: queue 1: timeout request 0x1 type 4, failed to send request -32',
  'libceph: osd0 (1)127.0.0.1:6801 socket closed (con state OPEN)',
  'libceph: osd0 down',
  'rbd: rbd0: write at objno 1 0~512 result -108',
  'BUG kmalloc-512 (Tainted: G           OE     ): Right Redzone overwritten',
  'BUG kmalloc-512 (Not tainted): Poison overwritten',
  'UBSAN: array-index-out-of-bounds in drivers/scsi/libiscsi_tcp.c:1:2',
  'BUG: KASAN: slab-out-of-bounds in tcp_sendpage+0x1/0x2',
  'BUG: KFENCE: use-after-free read in x',
  'kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)',
  'list_add corruption. prev->next should be next (ffff), but was dead',
  'list_del corruption, ffff->next is LIST_POISON1 (dead000000000100)',
  'refcount_t: underflow; use-after-free.',
  'WARNING: CPU: 0 PID: 1 at net/core/skbuff.c:1 skb_splice_from_iter+0x1/0x2',
  'WARNING: at fs/xfs/xfs_buf.c:1 xfs_buf_rele+0x1/0x2()',
  'WARNING: net/core/skbuff.c:7260 at skb_splice_from_iter+0x139/0x370, CPU#0: kworker/0:1H/75',
  'WARNING: possible circular locking dependency detected',
  '[ INFO: possible circular locking dependency detected ]',
  'WARNING: bad unlock balance detected!',
  'WARNING: suspicious RCU usage',
  'swapper/0: page allocation failure: order:0, mode:0x1(GFP_X), nodemask=(null)',
  'BUG: Bad page state in process tgtd  pfn:0001',
  'page dumped because: VM_BUG_ON_PAGE(PageSlab(page))',
  'Out of memory: Killed process 141 (tgtd) total-vm:1kB',
  'perl invoked oom-killer: gfp_mask=0x1(GFP_X), order=0, oom_score_adj=0',
  'kernel tried to execute NX-protected page - exploit attempt? (uid: 0)',
  'watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [tgtd:1]',
  'BUG: soft lockup - CPU#0 stuck for 22s! [tgtd:1]',
  'rcu: INFO: rcu_preempt self-detected stall on CPU',
  'rcu: INFO: rcu_sched detected stalls on CPUs/tasks:',
  'INFO: rcu_sched self-detected stall on CPU { 0}  (t=60000 jiffies)',
  'INFO: task mount:99 blocked for more than 120 seconds.',
  'BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 31s!',
  'BUG: scheduling while atomic: tgtd/1/0x00000002',
  'BUG: sleeping function called from invalid context at mm/slab.h:1',
  'irq 11: nobody cared (try booting with the "irqpoll" option)',
  'tcp_sendpage() returned -22',
  'usercopy: Kernel memory over',
  'tgtd[141]: segfault at 0 ip 0000000000000000 sp 0000000000000000 error 4 in tgtd',
  'traps: tgtd[141] general protection fault ip:1 sp:2 error:0 in tgtd',
  'general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1] PREEMPT SMP',
  'Oops: 0000 [#1] PREEMPT SMP',
  'Internal error: Oops: 96000004 [#1] SMP',
  '[  OK  ] Started Daily CleaWARNING: CPU: 0 PID: 1 at net/core/skbuff.c:1 skb_splice_from_iter+0x1/0x2',
];

/** As healthy guests print them. */
const HEALTHY = [
  'libiscsi: module verification failed: signature and/or required key missing - tainting kernel',
  'Linux version 6.1.0-56-amd64 (debian-kernel@lists.debian.org)',
  'XFS (sda): Mounting V5 Filesystem',
  'XFS (sda): Starting recovery (logdev: internal)',
  'XFS (sda): Ending recovery (logdev: internal)',
  'XFS (sda): Unmounting Filesystem',
  'XFS (sda): User initiated shutdown received.',
  'SGI XFS with ACLs, security attributes, realtime, quota, no debug enabled',
  'sd 2:0:0:1: [sda] Write Protect is off',
  'sd 2:0:0:1: [sda] Mode Sense: 69 00 10 08',
  'sd 2:0:0:1: [sda] Write cache: enabled, read cache: enabled, supports DPO and FUA',
  'scsi host2: iSCSI Initiator over TCP/IP',
  'iscsi: registered transport (tcp)',
  'Loading iSCSI transport class v2.0-870.',
  'libiscsi_tcp: loading out-of-tree module taints kernel.',
  'libiscsi_tcp: module verification failed: signature and/or required key missing - tainting kernel',
  'run (191): drop_caches: 2',
  'random: crng init done',
  'rcu: Hierarchical SRCU implementation.',
  'rcu: \tRCU restricting CPUs from NR_CPUS=8192 to nr_cpu_ids=1.',
  'tsc: Marking TSC unstable due to TSCs unsynchronized',
  'clocksource: timekeeping watchdog on CPU0: Marking clocksource tsc as unstable because the skew is too large:',
  'clocksource: Switched to clocksource hpet',
  'NOHZ tick-stop error: Non-RCU local softirq work is pending, handler #08!!!',
  'Spectre V2 : Spectre v2 / SpectreRSB mitigation: Filling RSB on context switch',
  "process 'x' started with executable stack",
  'Warning: unable to open an initial console.',
  'NMI watchdog: Perf NMI watchdog permanently disabled',
  'watchdog: Delayed init of the lockup detector failed: -19',
  'EXT4-fs (vdb): mounted filesystem with ordered data mode. Quota mode: none.',
  'nvme nvme0: creating 1 I/O queues.',
  'nvme nvme0: new ctrl: NQN "nqn", addr 127.0.0.1:4420',
  'nvmet: adding nsid 1 to subsystem nqn',
  'libceph: mon0 (1)127.0.0.1:6789 session established',
  'rbd: rbd0: capacity 8589934592 features 0x1',
  'hrtimer: interrupt took 4000000 ns',
  'mce: CPU0: Thermal monitoring enabled'.replace('mce: CPU0', 'CPU0'),
];

test('what kernels complain about is read, wherever it stands in a line', (t) => {
  for (const text of COMPLAINED) {
    t.truthy(complaintIn(text), text);
    t.truthy(complaintIn(`[  OK  ] Started Daily Clea${text}`), text);
  }
});

test('what healthy guests print is no complaint', (t) => {
  for (const text of HEALTHY) t.is(complaintIn(text), null, text);
});

test('a healthy boot has none', async (t) => {
  const log = await goldenLog('debian-6.1.192-unpatched-serial.log');
  const lines = parseLines(log);
  const crash = lines.findIndex(({ text }) => text.includes('usercopy: '));
  t.true(crash > 50);
  for (const { text } of lines.slice(0, crash)) {
    if (/xfs_fs_goingdown|User initiated|Please unmount/.test(text)) continue;
    t.is(complaintIn(text), null, text);
  }
});

test('every entry says where its kernel prints it, and is met by an example', (t) => {
  for (const { source, pattern } of COMPLAINTS) {
    t.true(source.length > 10);
    // Machine checks and the like have no example here: no guest prints them.
    if (/mce|debugobjects|page_io|sch_generic|skb_panic|target_core|slab_out_of_memory/.test(source))
      continue;
    t.true(
      COMPLAINED.some((text) => pattern.test(text)),
      `${pattern}`,
    );
  }
});

test("the workload's own shutdown is no complaint; any other is", (t) => {
  const log = (...lines: string[]): string => lines.map((line) => `[    9.000000] ${line}\n`).join('');
  const wanted = [
    'loopanic:c0ffee00:8: shutdown',
    'XFS (sda): User initiated shutdown received.',
    'XFS (sda): Metadata I/O Error (0x4) detected at xfs_fs_goingdown+0x71/0xb0 [xfs] (fs/xfs/xfs_fsops.c:495).  Shutting down filesystem.',
    'XFS (sda): Please unmount the filesystem and rectify the problem(s)',
    'XFS (sda): log I/O error -5',
    'XFS (sda): Unmounting Filesystem',
    'loopanic:c0ffee00:9: unmounted',
  ];
  t.deepEqual(classifyLog(log(...wanted)).warnings, []);
  t.is(
    classifyLog(log(...wanted.slice(0, 4), 'XFS (sda): log I/O error -121', ...wanted.slice(4))).warnings
      .length,
    1,
  );
  t.is(classifyLog(log(...wanted, 'XFS (sda): log I/O error -5')).warnings.length, 1);
  t.is(
    classifyLog(log(...wanted, 'XFS (sda): Please unmount the filesystem and rectify the problem(s)'))
      .warnings.length,
    1,
  );
  const old = 'XFS (sda): xfs_do_force_shutdown(0x2) called from line 1 of file fs/xfs/xfs_fsops.c.';
  t.deepEqual(
    classifyLog(log(old, 'XFS (sda): xfs_log_force: error -5 returned.', 'XFS (sda): Unmounting Filesystem'))
      .warnings,
    [],
  );
});

test('the time that a line takes grows no faster than its length', (t) => {
  // This process's own time, and the best of three: the host may be busy.
  const time = (text: string): number => {
    const rounds = [0, 1, 2].map(() => {
      const before = process.cpuUsage();
      for (let round = 0; round < 10; round++) classifyLog(text);
      return process.cpuUsage(before).user / 1000;
    });
    return Math.min(...rounds);
  };
  for (const piece of [
    'rcu ',
    'x rcu ',
    'blk_update_request: ',
    ' ',
    'WARNING: ',
    'XFS (',
    'INFO: task ',
    '[ 1.000000] ',
    'nvme nvme0: ',
    'usercopy: Kernel memory exposure attempt detected from a ',
    ' ()',
    'CPU: 0 PID: 1 Comm: a Not tainted 1.1',
    'a',
    'aaaa usercopy: kernel memory exposure ',
  ])
    for (const join of ['', '\n']) {
      const [small, large] = [piece.repeat(2000), piece.repeat(16000)].map((text) =>
        time(join === '' ? text : text.replaceAll(piece, piece + join)),
      );
      // Eight times as long: a quadratic pattern takes 64 times as long.
      t.true(
        (large ?? 0) < 30 * Math.max(small ?? 0, 1),
        `${JSON.stringify(piece)}: ${small} ms, ${large} ms`,
      );
    }
});

test('what a kernel calls an error is one, whatever it says; what only looks like one is none', (t) => {
  t.true(isComplaint('something that nobody has heard of', 3));
  t.true(isComplaint('something that nobody has heard of', 0));
  t.false(isComplaint('something that nobody has heard of', 4));
  t.false(isComplaint('something that nobody has heard of'));
  t.false(isComplaint('sd 2:0:0:1: [sda] Assuming drive cache: write through', 3));
});

test('the golden logs are all there', async (t) => {
  t.true((await readdir(join(packageRoot, 'harness/test/logs'))).length >= 5);
});
