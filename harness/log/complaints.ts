/** What a kernel prints when something went wrong that need not stop it. */
export interface Complaint {
  kind: 'warning' | 'io-error' | 'filesystem' | 'session' | 'memory' | 'lockup' | 'process' | 'crash';
  /** Where the kernel prints it; file and function of 6.1, unless a version is named. */
  source: string;
  /** Unanchored: other text of the same console may stand before it. No pattern has a repetition that can be tried in more than one way. */
  pattern: RegExp;
}

/**
 * One entry for each kind of message. Not in it, because healthy guests print them under emulation: clocksource and TSC marked unstable,
 * NOHZ tick-stop errors, ACPI and PCI complaints of the boot, taint by out-of-tree modules, possible SYN flooding.
 */
export const COMPLAINTS: readonly Complaint[] = [
  // kernel/panic.c, __warn(): "WARNING: CPU: %d PID: %d at %s:%d %pS"; before 3.? and without a place "WARNING: at"; since 6.16 "WARNING:
  // %s:%d at %pS, CPU#%d".
  {
    kind: 'warning',
    source: 'kernel/panic.c __warn',
    pattern: /WARNING: (?:CPU: \d+ PID: \d+ at |at |\S{1,200} at \S{1,200}, CPU#\d)/,
  },
  {
    kind: 'warning',
    source: 'kernel/locking/lockdep.c print_*, include/linux/rcupdate.h via lockdep_rcu_suspicious',
    pattern:
      /WARNING: (?:possible |inconsistent lock state|bad unlock balance|suspicious RCU usage|lock held when returning|held lock freed|Nested lock was not taken|bad contention detected|HARDIRQ-safe|SOFTIRQ-safe)|possible (?:circular locking dependency|recursive locking|irq lock inversion dependency|deadlock)|inconsistent \{|DEBUG_LOCKS_WARN_ON|INFO: trying to register non-static key|BUG: MAX_LOCK|turning off the locking correctness validator|INFO: suspicious RCU usage/,
  },
  { kind: 'warning', source: 'lib/refcount.c refcount_warn_saturate', pattern: /refcount_t: / },
  { kind: 'warning', source: 'lib/ubsan.c ubsan_prologue', pattern: /UBSAN: / },
  {
    kind: 'memory',
    source: 'mm/kasan/report.c, mm/kfence/report.c, kernel/kcsan/report.c, mm/kmsan/report.c',
    pattern: /BUG: K(?:ASAN|FENCE|CSAN|MSAN): /,
  },
  { kind: 'memory', source: 'mm/kmemleak.c kmemleak_scan', pattern: /new suspected memory leaks/ },
  {
    kind: 'memory',
    source: 'lib/list_debug.c; include/linux/list.h since 6.6',
    pattern:
      /list_(?:add|del)(?:_rcu)? (?:corruption|double add)|list_debug: |list_add corruption|list_del corruption/,
  },
  {
    kind: 'memory',
    source: 'mm/slub.c slab_bug, slab_fix; object_err texts',
    pattern:
      /BUG [\w.:-]{1,64} \((?:Not tainted|Tainted|[GP] {2})|(?:Right|Left) Redzone overwritten|(?:Poison|Padding|Redzone) overwritten|Object already free|Freepointer corrupt|Object padding overwritten|Invalid object pointer|Wrong object count/,
  },
  {
    kind: 'memory',
    source: 'mm/page_alloc.c bad_page, mm/memory.c print_bad_pte, mm/debug.c dump_page',
    pattern: /BUG: Bad (?:page|rss-counter)|page dumped because: |BUG: non-zero pgtables_bytes/,
  },
  {
    kind: 'memory',
    source: 'mm/page_alloc.c warn_alloc',
    pattern: /(?:page|order-\d+) allocation failure|: page allocation stalls/,
  },
  {
    kind: 'memory',
    source: 'mm/oom_kill.c',
    pattern: /invoked oom-killer|Out of memory[ :(]|Killed process \d|oom-kill:|oom_reaper: /,
  },
  { kind: 'memory', source: 'mm/slub.c slab_out_of_memory', pattern: /SLUB: Unable to allocate memory/ },
  {
    kind: 'memory',
    source: 'mm/usercopy.c usercopy_warn (4.16 to 5.17), usercopy_abort',
    pattern: /usercopy: |Bad or missing usercopy whitelist/,
  },
  // Block layer. blk_errors[] in block/blk-core.c, printed by blk_print_req_error() of block/blk-mq.c; "blk_update_request: %s error, dev
  // %s" up to 5.17; "end_request: %s error, dev %s" in 3.10.
  {
    kind: 'io-error',
    source: 'block/blk-core.c blk_errors[], block/blk-mq.c blk_print_req_error',
    pattern:
      /(?:I\/O|critical target|critical medium|critical nexus|critical space allocation|recoverable transport|timeout|device offline|protection|reservation conflict|zone active\/open limits reached|device resource|critical device|operation not supported|dm internal retry|out of zone resources|nonblocking retry|duration limit exceeded|kernel resource|invalid) error, dev /,
  },
  {
    kind: 'io-error',
    source: 'fs/buffer.c buffer_io_error',
    pattern: /Buffer I\/O error on dev|lost (?:async |sync )?page write/,
  },
  {
    kind: 'io-error',
    source: 'fs/iomap/buffered-io.c iomap_ioend_finish; fs/xfs/xfs_aops.c',
    pattern: /writeback error on (?:inode|sector)|page discard on page/,
  },
  { kind: 'io-error', source: 'mm/page_io.c', pattern: /(?:Read|Write)-error on swap-device/ },
  // SCSI and its transports.
  {
    kind: 'io-error',
    source: 'drivers/scsi/scsi_logging.c scsi_print_result, scsi_print_sense',
    pattern:
      /FAILED Result: hostbyte|Sense Key : (?:Medium Error|Hardware Error|Illegal Request|Data Protect|Aborted Command|Not Ready|Volume Overflow|Miscompare|Blank Check)/,
  },
  {
    kind: 'io-error',
    source: 'drivers/scsi/sd.c sd_read_write_protect_flag',
    pattern: /\] Write Protect is on/,
  },
  {
    kind: 'io-error',
    source: 'drivers/scsi/scsi_lib.c, scsi_error.c',
    pattern:
      /rejecting I\/O to (?:offline|dead) device|[Dd]evice offlined|killing request|Medium access timeout failure/,
  },
  {
    kind: 'session',
    source:
      'drivers/scsi/scsi_transport_iscsi.c iscsi_conn_error_event, session_recovery_timedout; libiscsi.c; iscsi_tcp.c',
    pattern:
      /detected conn error|session recovery timed out|ping timeout of |iscsi: .{0,40}(?:error|failed|timed out)|dropping R2T|Got CHECK_CONDITION but|hdr digest error|data digest error|iscsi_tcp: datalen|pdu \(op|session blocked|session_recovery/,
  },
  {
    kind: 'session',
    source: 'drivers/target/iscsi, target_core_tmr.c',
    pattern:
      /ABORT_TASK: |TARGET_CORE\[iSCSI\]: |iSCSI Login (?:timeout|negotiation failed)|Unable to locate Target Portal Group|rx_data returned|TMR .{0,40}timed out/,
  },
  {
    kind: 'session',
    source: 'drivers/nvme/host/{core,tcp,fabrics}.c, drivers/nvme/target/tcp.c',
    pattern:
      /nvme\S{0,40}: (?:I\/O \d+ .{0,60}timeout|.{0,60}(?:[Rr]econnect|error recovery|failed to send request|Connect command failed|unrecoverable|data digest|controller is down|Device not ready|Removing (?:after|ctrl)|I\/O Error|keep.alive))|nvmet_tcp: .{0,60}(?:fail|unexpected|error|mismatch)|nvmet: .{0,60}(?:timer|fatal|error)/,
  },
  {
    kind: 'session',
    source: 'net/ceph/messenger.c, osd_client.c, drivers/block/rbd.c',
    pattern:
      /libceph: .{0,120}(?:socket (?:closed|error)|bad crc|connect(?:ion)? (?:reset|error|failed)|session lost|wrong peer|down|feature set mismatch|protocol)|rbd: .{0,80}(?:result -|failed|error)/,
  },
  {
    kind: 'session',
    source: 'net/ipv4/tcp.c callers of kernel_sendpage, e.g. drbd, iscsi_tcp',
    pattern: /sendpage\(\) returned -/,
  },
  // File systems.
  {
    kind: 'filesystem',
    source: 'fs/xfs: xfs_fsops.c, xfs_log.c, xfs_buf.c, xfs_error.c, xfs_message.c, kmem.c',
    pattern:
      /XFS ?(?:\([^)]{1,32}\))?: (?:.{0,60}(?:[Ll]og I\/O [Ee]rror|[Mm]etadata I\/O [Ee]rror|[Cc]orruption|CRC error|CRC failure|Internal error|has been shut down|Failing async write|possible memory allocation deadlock|Assertion failed|Shutting down filesystem|Please u(?:n)?mount the filesystem and rectify|Unmount and run xfs_repair|error \d+ returned|error -\d+)|xfs_do_force_shutdown|writeback error|Page discard)/,
  },
  {
    kind: 'filesystem',
    source: 'fs/ext4/super.c, fs/jbd2/journal.c',
    pattern:
      /EXT[234]-fs (?:error|warning|\([^)]{1,40}\): (?:error|I\/O error|Remounting filesystem read-only|failed))|JBD2: (?:Detected IO errors|Error|.{0,40}[Ff]ailed)|Aborting journal/,
  },
  {
    kind: 'filesystem',
    source: 'fs/super.c generic_shutdown_super',
    pattern: /VFS: Busy inodes after unmount/,
  },
  // Lockups.
  {
    kind: 'lockup',
    source: 'kernel/watchdog.c',
    pattern: /soft lockup - CPU#|hard LOCKUP|Hard LOCKUP|NMI watchdog: BUG/,
  },
  {
    kind: 'lockup',
    source: 'kernel/rcu/tree_stall.h; kernel/rcutree.c (3.10)',
    pattern: /detected (?:expedited )?stalls? on|rcu_\w{1,20} kthread (?:starved|timer wakeup)/,
  },
  {
    kind: 'lockup',
    source: 'kernel/hung_task.c check_hung_task',
    pattern: /INFO: task .{1,64} blocked (?:for more than|in I\/O wait)/,
  },
  { kind: 'lockup', source: 'kernel/workqueue.c wq_watchdog_timer_fn', pattern: /BUG: workqueue lockup/ },
  { kind: 'lockup', source: 'kernel/irq/spurious.c', pattern: /: nobody cared|Disabling IRQ #/ },
  { kind: 'lockup', source: 'net/sched/sch_generic.c dev_watchdog', pattern: /NETDEV WATCHDOG: / },
  // Kernel code that should not be where it is.
  {
    kind: 'warning',
    source: 'kernel/sched/core.c',
    pattern:
      /scheduling while atomic|sleeping function called from invalid context|DEADLINE bandwidth|can't die/,
  },
  {
    kind: 'warning',
    source: 'net/core/skbuff.c skb_panic; net/core/dev.c netdev_rx_csum_fault',
    pattern: /skb_(?:over|under)_panic|hw csum failure/,
  },
  {
    kind: 'warning',
    source: 'arch/x86/kernel/nmi.c, arch/x86/kernel/cpu/mce',
    pattern: /Uhhuh\. NMI received|Dazed and confused|\[Hardware Error\]|Machine check events logged/,
  },
  {
    kind: 'warning',
    source: 'lib/debugobjects.c, kernel/softirq.c, lib/idr',
    pattern: /ODEBUG: |huh, entered softirq|kobject_add_internal failed/,
  },
  // Programs: a target or initiator that died.
  {
    kind: 'process',
    source: 'arch/x86/mm/fault.c show_signal_msg; arch/x86/kernel/traps.c',
    pattern:
      /\]: segfault at |traps: .{1,64} (?:general protection|trap |invalid opcode|divide error)|general protection (?:fault )?ip:/,
  },
  // What stops a kernel is read by crash-report.ts; here so that no wording of it passes for nothing.
  {
    kind: 'crash',
    source: 'arch/x86/kernel/dumpstack.c __die_header, arch/x86/mm/fault.c, lib/bug.c, kernel/panic.c',
    pattern:
      /kernel BUG at |BUG: |Oops[:[]|Internal error: |general protection fault|Unable to handle kernel|unable to handle (?:kernel|page fault)|Kernel panic - not syncing|stack segment: |double fault: |divide error: |invalid opcode: |kernel tried to execute|Kernel stack overflow|PANIC: |sysrq: (?:Trigger a crash|SysRq : Trigger a crash)|Rebooting in /,
  },
];

/** KERN_ERR of include/linux/kern_levels.h: what a kernel calls an error or worse is one, whatever it says. */
const ERROR_LEVEL = 3;
/**
 * Called an error, and none: sd's guess at a cache (drivers/scsi/sd.c sd_read_cache_type), a file system's youth (fs/xfs/xfs_super.c),
 * debugfs of a module that is loaded twice, LIO's answer to a question of sd's (drivers/target/target_core_spc.c spc_emulate_modesense).
 */
const HARMLESS_ERRORS =
  /Assuming drive cache: write through|No Caching mode page found|Asking for cache data failed|EXPERIMENTAL|debugfs: .{0,80}already present|^MODE SENSE: unimplemented page/;

/**
 * True if a kernel's message says that something went wrong: by its text (without time stamp: log-line.ts), or by its level where that is
 * known.
 */
export function isComplaint(text: string, level?: number): boolean {
  return (
    complaintIn(text) !== null || (level !== undefined && level <= ERROR_LEVEL && !HARMLESS_ERRORS.test(text))
  );
}

/** First entry that the text of a kernel's message matches, or null. `text` has no time stamp (log-line.ts). */
export function complaintIn(text: string): Complaint | null {
  // An unsigned module taints the kernel, and no more (kernel/module/main.c).
  if (text.includes('module verification failed')) return null;
  const start = text.length > LONGEST ? text.slice(0, LONGEST) : text;
  return COMPLAINTS.find(({ pattern }) => pattern.test(start)) ?? null;
}

/** No console line is read further (guest-markers.ts). */
const LONGEST = 64 * 1024;
