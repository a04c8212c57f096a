/** Words that a scenario has settings of its own for; what is said twice is read back as one of the two only. */
const SETTINGS: Record<string, string> = {
  hardened_usercopy: 'kernel.hardenedUsercopy',
  slub_min_order: 'kernel.slubMinOrder',
  slab_min_order: 'kernel.slubMinOrder',
  slub_max_order: 'kernel.slubMaxOrder',
  slab_max_order: 'kernel.slubMaxOrder',
  slub_debug: 'kernel.slubDebug',
  slab_debug: 'kernel.slubDebug',
  crashkernel: 'vm.crashkernelMiB',
  maxcpus: 'vm.cpus',
  nr_cpus: 'vm.cpus',
  possible_cpus: 'vm.possibleCpus',
  nosmp: 'vm.cpus',
  mem: 'vm.memoryMiB',
  memmap: 'vm.memoryMiB',
};

/** Words that decide whether and what the harness hears of the guest, or what its init is. */
const OF_THE_HARNESS = [
  ...[
    'console',
    'loglevel',
    'quiet',
    'debug',
    'ignore_loglevel',
    'log_buf_len',
    'no_console_suspend',
    'earlycon',
  ],
  ...[
    'printk.devkmsg',
    'printk.time',
    'printk.console_suspend',
    'printk.always_kmsg_dump',
    'printk.synchronous',
  ],
  ...['init', 'rdinit', 'root', 'rootfstype', 'initrd', 'noinitrd', 'ro', 'rw', '--'],
  ...['panic', 'oops', 'panic_on_oops', 'panic_on_warn', 'panic_print', 'pause_on_oops', 'softlockup_panic'],
  ...['no_timer_check', 'nmi_watchdog', 'trace_event', 'ftrace', 'kprobe_event', 'loopanic.token'],
];

/**
 * Why a word may not stand in kernel.extraArgs, or null. The kernel takes - for _ in a parameter's name (parameq() in kernel/params.c)
 * and lets a sysctl be set by sysctl.NAME=VALUE.
 */
export function whyReserved(word: string): string | null {
  const name = (word.split('=', 1)[0] ?? '').replaceAll('-', '_').toLowerCase();
  const plain = word === '--' ? '--' : name;
  if (Object.hasOwn(SETTINGS, plain)) return `is set by ${SETTINGS[plain]}`;
  if (OF_THE_HARNESS.includes(plain))
    return 'is set by loopanic, which reads what the guest prints and decides by it';
  if (plain.startsWith('sysctl.'))
    return 'sets a sysctl at boot: do that in the workload, where it can be read back';
  return null;
}
