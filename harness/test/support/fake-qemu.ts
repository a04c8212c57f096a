import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { Socket } from 'node:net';
import { basename, dirname, join } from 'node:path';

// Stands on PATH as qemu-system-x86_64 in tests of what a real QEMU won't do on demand. It answers QMP on descriptor 3 and "boots" as it
// is told: by FAKE_QEMU (one behaviour for all), or by a JSON file FAKE_QEMU_PLAN {"module": ["behaviour of trial 1", "of trial 2",
// ...]}, whose last entry holds for what comes after. What it prints follows the guest's protocol (vm-images/guest/lib.sh), with the
// trial's own token and expectations, which it reads from the trial's plan.json.
const args = process.argv.slice(2);
if (args.includes('--version')) {
  process.stdout.write('QEMU emulator version 0.0.0 (fake)\n');
  process.exit(0);
}

interface Plan {
  module: string;
  trial: number;
  token: string;
  scenario: { where: string };
  expected: Record<string, unknown> & {
    module: { srcversion: string; buildId: string | null };
    transport: Record<string, string>;
  };
}

const pathOf = (id: string): string => {
  const chardev = args.find((arg) => arg.startsWith(`file,id=${id},`)) ?? '';
  return (/path=(.*),append=on$/.exec(chardev)?.[1] ?? '/dev/null').replaceAll(',,', ',');
};
const files = { console: pathOf('console'), guest: pathOf('guest') };
const dir = dirname(files.console);
const plan = JSON.parse(readFileSync(join(dir, 'plan.json'), 'utf8')) as Plan;
const isTarget = basename(files.console).startsWith('target-');

function modeOf(): string {
  const { FAKE_QEMU, FAKE_QEMU_PLAN } = process.env;
  if (FAKE_QEMU_PLAN === undefined || !existsSync(FAKE_QEMU_PLAN)) return FAKE_QEMU ?? 'silent';
  const scripted = JSON.parse(readFileSync(FAKE_QEMU_PLAN, 'utf8')) as Record<string, string[]>;
  // A file's module is named with a hash of its content.
  const list = scripted[plan.module] ??
    scripted[plan.module.split('@')[0] ?? ''] ??
    scripted['*'] ?? ['silent'];
  return list[Math.min(plan.trial, list.length) - 1] ?? 'silent';
}
const mode = modeOf();
if (mode === 'refuses') {
  process.stderr.write('qemu-system-x86_64: -m 1024M: cannot allocate memory\n');
  process.exit(1);
}

/** Bytes that its disk has received: as many as it says that it wrote, or what it is told to say. */
let arrived = 0;
let isHonest = true;
let isAsked = false;

const qmp = new Socket({ fd: 3 });
qmp.on('error', () => {});
if (mode !== 'mute') {
  qmp.write(`${JSON.stringify({ QMP: { version: {}, capabilities: [] } })}\n`);
  qmp.on('data', (chunk) => {
    for (const line of chunk.toString().split('\n').filter(Boolean)) {
      const { execute, id } = JSON.parse(line);
      // It is asked before the workload, when nothing has come, and after it.
      const stats = [{ device: 'lun', stats: { wr_bytes: isAsked ? arrived : 0 } }];
      if (execute === 'query-blockstats') isAsked = true;
      qmp.write(`${JSON.stringify({ return: execute === 'query-blockstats' ? stats : {}, id })}\n`);
    }
  });
}

let clock = 5;
let record = 1000;
let marks = 0;
const kernelLog: string[] = [];
/** Bytes that do not arrive, as on a full disk. */
let losing = false;

function append(file: string, text: string | Buffer): void {
  try {
    appendFileSync(file, text);
  } catch {
    // As QEMU does: without a word.
  }
}
const stamp = (): string => {
  clock += 0.001;
  return `[${clock.toFixed(6).padStart(12)}] `;
};
/** The kernel logs: to its own log, and to the console if the level is one for it. */
function log(text: string, level = 4): void {
  kernelLog.push(`kmsg ${record++} ${level} ${text}`);
  if (level < 6 && !losing) append(files.console, `${stamp()}${text}\r\n`);
}
const raw = (text: string | Buffer): void => append(files.console, text);
function mark(said: string): void {
  if (isHonest) arrived = Number(/ bytes=(\d{1,15})$/.exec(said)?.[1] ?? arrived);
  log(`loopanic:${plan.token}:${++marks}: ${said}`, 5);
}
const fact = (...said: string[]): void =>
  append(files.guest, said.map((line) => `@${plan.token} ${line}\n`).join(''));
const later = (ms: number, work: () => void): void => void setTimeout(work, ms);
const beat = (): void => void setInterval(() => fact('alive'), 200);

const { expected } = plan;
const number = (key: string): number => Number(expected[key] ?? 0);
const cycles = number('cycles');
const groups = number('allocationGroups');

function facts(changed: Record<string, string> = {}): void {
  const order = expected.slubMinOrder ?? (expected.slubMaxOrder === 0 ? 0 : 1);
  const told: Record<string, string> = {
    'module.srcversion': expected.module.srcversion,
    'module.buildId': expected.module.buildId ?? '',
    'usercopy.checks': expected.hardenedUsercopy === 'on' ? '17' : '0',
    'session.localPorts': 'A1B2',
    release: String(expected.release),
    cmdline: args[args.indexOf('-append') + 1] ?? '',
    'cpus.online': number('onlineCpus') > 1 ? `0-${number('onlineCpus') - 1}` : '0',
    'cpus.possible': '0',
    slab: `kmalloc-512 ${order} ${8 << Number(order)}`,
    'slab.redZone': expected.redZone ? '1' : '0',
    'block.nomerges': String(expected.nomerges),
    'filesystem.name': String(expected.filesystem),
    'filesystem.sectorSize': String(expected.sectorSize),
    'filesystem.blockSize': String(expected.blockSize),
    'filesystem.allocationGroups': String(groups),
    'filesystem.writebackCentiseconds': String(expected.writebackCentiseconds ?? 3000),
    ...Object.fromEntries(
      Object.entries(expected.transport).map(([key, value]) => [`transport.${key}`, value]),
    ),
    ...changed,
  };
  fact(...Object.entries(told).map(([key, value]) => `${key} ${value}`));
}
function boot(): void {
  log(`Linux version ${expected.release} (fake)`, 5);
  mark('up');
  mark('phase modules');
  fact(`module.srcversion ${expected.module.srcversion}`, `module.buildId ${expected.module.buildId ?? ''}`);
}
function mounted(changed: Record<string, string> = {}): void {
  if (plan.scenario.where !== 'peer') mark('phase target');
  mark('phase login');
  mark('phase mount');
  facts(changed);
}
function toWorkload(changed: Record<string, string> = {}): void {
  boot();
  mounted(changed);
  mark('phase workload');
}
const counts = (cycle: number, merged = groups, reads = 2 * groups): string =>
  `merged=${cycle * merged} reads=${cycle * reads} bytes=${cycle * 4096000}`;
function work(from = 1, to = cycles): void {
  for (let cycle = from; cycle <= to; cycle++) mark(`cycle ${cycle} ${counts(cycle)}`);
}
const done = (): void => mark(`done cycles=${cycles} ${counts(cycles)}`);
function sendLog(records: readonly string[] = kernelLog): void {
  const first = records.findIndex((line) => line.includes(`loopanic:${plan.token}:1: `));
  const sent = first < 0 ? [] : records.slice(first);
  fact(...sent);
  const numberOf = (line: string | undefined): string => line?.split(' ')[1] ?? '0';
  fact(`kmsg.end ${numberOf(sent[0])} ${record - 1}`);
  announced = `records=${record - Number(numberOf(sent[0]))} last=${record - 1}`;
}
let announced = '';
const ended = (): void => mark(`ended ${announced}`);
function finish(changed: Record<string, string> = {}): void {
  fact('again');
  facts(changed);
  sendLog();
  ended();
}
function survive(): void {
  work();
  done();
  finish();
}
/** 100 MB. */
function pour(block: Buffer): void {
  let blocks = Math.ceil(100e6 / block.length);
  const timer = setInterval(() => (blocks-- > 0 ? raw(block) : clearInterval(timer)), 10);
}
const usercopy = (): void => {
  log(
    "usercopy: Kernel memory exposure attempt detected from SLUB object 'kmalloc-512' (offset 0, size 1024)!",
    0,
  );
  log('------------[ cut here ]------------');
  log('kernel BUG at mm/usercopy.c:101!');
};
function trace(end = true): void {
  for (const text of [
    'invalid opcode: 0000 [#1] PREEMPT SMP NOPTI',
    `CPU: 0 PID: 141 Comm: tgtd Tainted: G           OE      ${expected.release} #1  Debian 6.1.192-2`,
    'RIP: 0010:usercopy_abort+0x75/0x77',
    'Call Trace:',
    ' <TASK>',
    ' __check_object_size.part.0+0x5e/0x140',
    ' simple_copy_to_iter+0x1c/0x40',
    ' tcp_recvmsg_locked+0x2bd/0x9c0',
    ' tcp_recvmsg+0x6f/0x1d0',
    ' </TASK>',
    'Modules linked in: iscsi_tcp libiscsi_tcp',
  ])
    log(text);
  if (end) endOfPanic();
}
function endOfPanic(): void {
  log('---[ end trace 0000000000000000 ]---');
  log('Kernel panic - not syncing: Fatal exception', 0);
  log('---[ end Kernel panic - not syncing: Fatal exception ]---', 0);
}
function panic(): void {
  usercopy();
  trace();
}
const WARNING = 'WARNING: CPU: 0 PID: 9 at net/core/skbuff.c:6970 skb_splice_from_iter+0x1/0x2';
function warn(): void {
  for (const text of [
    WARNING,
    'CPU: 0 PID: 9 Comm: kworker/0:1 Not tainted 6.1.0-56-amd64 #1',
    'Call Trace:',
    ' iscsi_sw_tcp_xmit_segment+0x1/0x2',
    '---[ end trace 0 ]---',
  ])
    log(text);
}
const IO_ERROR = 'I/O error, dev sda, sector 1 op 0x1:(WRITE) flags 0x1000 phys_seg 2 prio class 2';

/** One line of a kernel in the middle of the workload, after which the guest survives. */
const says =
  (text: string, level = 4) =>
  (): void => {
    toWorkload();
    later(40, () => {
      work(1, cycles - 1);
      log(text, level);
      work(cycles, cycles);
      done();
      finish();
    });
  };

const BEHAVIOURS: Record<string, () => void> = {
  silent: () => log(`Linux version ${expected.release} (fake)`, 5),
  mute() {},
  survive() {
    toWorkload();
    later(40, survive);
  },
  panic() {
    toWorkload();
    later(40, () => {
      work(1, 1);
      panic();
    });
  },
  stalls() {
    boot();
    mounted();
    beat();
  },
  'slow-survive'() {
    toWorkload();
    beat();
    later(6000, survive);
  },
  'kills-its-host'() {
    toWorkload();
    beat();
    // setpriv has become this process: its parent is loopanic.
    later(300, () => process.kill(process.ppid, 'SIGKILL'));
  },
  dies() {
    boot();
    process.stderr.write('qemu-system-x86_64: fatal: host memory fault\n');
    later(300, () => process.exit(1));
  },
  'module-refused'() {
    boot();
    mark(
      "failed modules: /sbin/modprobe -a iscsi_tcp (exit 1): modprobe: ERROR: could not insert 'libiscsi_tcp': Invalid argument",
    );
  },
  'step-fails'() {
    boot();
    mark('phase mount');
    mark('failed mount: mount -t xfs /dev/sda /mnt (exit 32): wrong fs type');
  },
  // Proofs that are none.
  lies() {
    toWorkload();
    done();
    finish();
  },
  'done-alone'() {
    boot();
    facts();
    done();
    finish();
  },
  'ends-early'() {
    toWorkload();
    work(1, cycles - 1);
    mark(`done cycles=${cycles - 1} ${counts(cycles - 1)}`);
    finish();
  },
  'done-twice-as-much'() {
    toWorkload();
    work();
    mark(`done cycles=${cycles} ${counts(cycles * 2)}`);
    finish();
  },
  'cycle-missing'() {
    toWorkload();
    for (let cycle = 1; cycle <= cycles; cycle++) if (cycle !== 2) mark(`cycle ${cycle} ${counts(cycle)}`);
    done();
    finish();
  },
  'cycle-twice'() {
    toWorkload();
    work(1, 2);
    work(2);
    done();
    finish();
  },
  'phase-missing'() {
    boot();
    mark('phase mount');
    facts();
    mark('phase workload');
    survive();
  },
  'one-cycle-idle'() {
    toWorkload();
    let [merged, reads] = [0, 0];
    for (let cycle = 1; cycle <= cycles; cycle++) {
      // One of them did nothing; the average is more than enough.
      if (cycle !== 2) [merged, reads] = [merged + 4 * groups, reads + 2 * groups];
      else reads += 2 * groups;
      mark(`cycle ${cycle} merged=${merged} reads=${reads} bytes=${cycle * 4096}`);
    }
    mark(`done cycles=${cycles} merged=${merged} reads=${reads} bytes=${cycles * 4096}`);
    finish();
  },
  'headers-cached'() {
    toWorkload();
    for (let cycle = 1; cycle <= cycles; cycle++) mark(`cycle ${cycle} ${counts(cycle, groups, 0)}`);
    mark(`done cycles=${cycles} ${counts(cycles, groups, 0)}`);
    finish();
  },
  'writes-nothing'() {
    isHonest = false;
    toWorkload();
    survive();
  },
  'writes-little'() {
    // Small numbers where the host can look, large ones where it cannot.
    isHonest = false;
    arrived = 512;
    toWorkload();
    const said = (cycle: number): string =>
      `merged=${cycle * 1e10} reads=${cycle * 1e10} leaked=0 bytes=${cycle}`;
    for (let cycle = 1; cycle <= cycles; cycle++) mark(`cycle ${cycle} ${said(cycle)}`);
    mark(`done cycles=${cycles} ${said(cycles)}`);
    finish();
  },
  'slabs-then-panic'() {
    toWorkload();
    work(1, 1);
    for (let from = 0; from < 200_000; from += 1000)
      fact(...Array.from({ length: 1000 }, (_, index) => `slab a${from + index} 1 16`));
    later(300, panic);
  },
  'panic-of-a-size'() {
    toWorkload();
    work(1, 1);
    log(
      "usercopy: Kernel memory exposure attempt detected from SLUB object 'kmalloc-512' (offset 0, size 99999999999999999999)!",
      0,
    );
    log('------------[ cut here ]------------');
    log('kernel BUG at mm/usercopy.c:101!');
    trace();
  },
  'panic-of-nothing'() {
    toWorkload();
    work(1, 1);
    log(
      "usercopy: Kernel memory exposure attempt detected from SLUB object 'kmalloc-0' (offset 0, size 1024)!",
      0,
    );
    log('------------[ cut here ]------------');
    log('kernel BUG at mm/usercopy.c:101!');
    trace();
  },
  'cycles-for-ever'() {
    toWorkload();
    work();
    beat();
    let cycle = cycles;
    setInterval(() => mark(`cycle ${++cycle} ${counts(cycle)}`), 300);
  },
  'holds-unasked'() {
    toWorkload();
    beat();
    mark('holding');
  },
  ups() {
    toWorkload();
    beat();
    setInterval(() => mark('up'), 300);
  },
  newlines() {
    toWorkload();
    pour(Buffer.alloc(100_000, 10));
  },
  'huge-numbers'() {
    toWorkload();
    for (let cycle = 1; cycle <= cycles; cycle++)
      mark(`cycle ${cycle} merged=${'9'.repeat(30)} reads=9 bytes=9`);
    done();
    finish();
  },
  'wrong-token'() {
    toWorkload();
    work();
    log('loopanic:00000000:99: done', 5);
    log('loopanic:00000000:100: ended', 5);
  },
  // What is read back.
  'usercopy-off': () => {
    toWorkload({ 'usercopy.checks': '0' });
    survive();
  },
  'usercopy-unknown': () => {
    toWorkload({ 'usercopy.checks': '' });
    survive();
  },
  'facts-change': () => {
    toWorkload();
    work();
    done();
    finish({ 'block.nomerges': '2', 'usercopy.checks': '0' });
  },
  'facts-lost': () => {
    toWorkload();
    work();
    done();
    sendLog();
    ended();
  },
  'session-moved': () => {
    toWorkload();
    work();
    done();
    finish({ 'session.localPorts': 'C3D4' });
  },
  'another-module': () => {
    toWorkload({ 'module.buildId': 'beef', 'module.srcversion': 'BEEF' });
    survive();
  },
  // Panics that must not be forgotten.
  'panic-nofacts'() {
    log(`Linux version ${expected.release} (fake)`, 5);
    mark('up');
    mark('phase modules');
    later(40, panic);
  },
  'panic-badfact'() {
    toWorkload({ 'module.buildId': 'beef', 'module.srcversion': 'BEEF' });
    later(40, panic);
  },
  'half-panic'() {
    toWorkload();
    usercopy();
  },
  'half-then-wait'() {
    toWorkload();
    beat();
    later(40, () => {
      work(1, 1);
      usercopy();
      later(3000, () => trace());
    });
  },
  'panic-slow'() {
    toWorkload();
    later(40, () => {
      work(1, 1);
      usercopy();
      trace(false);
      later(2500, endOfPanic);
    });
  },
  'panic-after-done'() {
    toWorkload();
    later(40, () => {
      work();
      done();
      panic();
    });
  },
  'half-panic-after-done'() {
    toWorkload();
    later(40, () => {
      work();
      done();
      usercopy();
    });
  },
  'panic-in-the-log-alone'() {
    toWorkload();
    work();
    losing = true;
    panic();
    losing = false;
    done();
    finish();
  },
  'panic-then-chatter'() {
    toWorkload();
    usercopy();
    setInterval(() => log('rcu: still waiting'), 300);
  },
  'panic-twice'() {
    toWorkload();
    panic();
    panic();
  },
  'boot-panic'() {
    log(`Linux version ${expected.release} (fake)`, 5);
    log('Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)', 0);
    log('---[ end Kernel panic - not syncing: VFS: Unable to mount root fs ]---', 0);
  },
  'other-panic'() {
    toWorkload();
    log('BUG: unable to handle page fault for address: ffffffff00000000');
    log(`CPU: 0 PID: 99 Comm: kworker/0:1 Not tainted ${expected.release} #1`);
    log('Call Trace:');
    log(' xfs_ail_push+0x1/0x2');
    endOfPanic();
  },
  // Complaints that must not be tried away.
  'warn-then-hang'() {
    toWorkload();
    beat();
    later(40, () => {
      work(1, 1);
      warn();
    });
  },
  'warn-glued'() {
    toWorkload();
    later(40, () => {
      work(1, 1);
      raw('[  OK  ] Started Daily Clea');
      warn();
      work(2);
      done();
      finish();
    });
  },
  'warn-glued-unstamped'() {
    toWorkload();
    work(1, 1);
    raw(`[  OK  ] Started Daily Clea${WARNING}\r\n`);
    work(2);
    done();
    finish();
  },
  'warn-then-killed'() {
    toWorkload();
    later(40, () => {
      work(1, 1);
      warn();
      later(300, () => process.kill(process.pid, 'SIGKILL'));
    });
  },
  'warn-low-merge'() {
    toWorkload();
    later(40, () => {
      warn();
      log(IO_ERROR);
      for (let cycle = 1; cycle <= cycles; cycle++)
        mark(`cycle ${cycle} merged=${cycle} reads=${cycle} bytes=${cycle}`);
      mark(`done cycles=${cycles} merged=${cycles} reads=${cycles} bytes=${cycles}`);
      finish();
    });
  },
  'warn-in-the-log-alone'() {
    toWorkload();
    work(1, 1);
    losing = true;
    warn();
    losing = false;
    work(2);
    done();
    finish();
  },
  'warn-then-step-fails'() {
    toWorkload();
    warn();
    mark('failed workload: umount /mnt (exit 32): target is busy');
  },
  'conn-error': says(' connection1:0: detected conn error (1020)', 6),
  'write-protected': says(
    'critical target error, dev sda, sector 16785142 op 0x1:(WRITE) flags 0x29800 phys_seg 1 prio class 2',
    3,
  ),
  'xfs-shutdown': says('XFS (sda): Filesystem has been shut down due to log error (0x2).', 1),
  'writeback-error': says('sda: writeback error on inode 18612364, offset 0, sector 18612520', 3),
  'unheard-of-error': says('foo: the frobnicator is upset', 3),
  oom: says('Out of memory: Killed process 141 (tgtd) total-vm:1kB', 3),
  // A console that is not whole.
  'console-gap'() {
    toWorkload();
    work(1, 1);
    losing = true;
    warn();
    mark(`cycle 2 ${counts(2)}`);
    losing = false;
    work(3);
    done();
    finish();
  },
  'console-cut-line'() {
    toWorkload();
    work(1, 1);
    raw(`${stamp()}XFS (sda): Mou`);
    work(2);
    done();
    finish();
  },
  'log-gap'() {
    toWorkload();
    work();
    done();
    fact('again');
    facts();
    sendLog(kernelLog.filter((_, index) => index !== kernelLog.length - 2));
    ended();
  },
  'log-missing'() {
    toWorkload();
    work();
    done();
    fact('again');
    facts();
    ended();
  },
  'log-short'() {
    toWorkload();
    work();
    done();
    fact('again');
    facts();
    sendLog();
    announced = `records=${kernelLog.length + 5} last=${record + 4}`;
    ended();
  },
  'log-tells-another-story'() {
    toWorkload();
    work();
    done();
    fact('again');
    facts();
    sendLog(kernelLog.map((line) => line.replace('done cycles=', 'done cycle=')));
    ended();
  },
  // Guests that do not end.
  hang: () => toWorkload(),
  'hang-with-heartbeat'() {
    toWorkload();
    beat();
  },
  'boot-chatter'() {
    log(`Linux version ${expected.release} (fake)`, 5);
    let count = 0;
    setInterval(() => log(`rcu: still waiting for ${++count} s`), 200);
  },
  'marker-chatter'() {
    toWorkload();
    beat();
    setInterval(() => mark('phase workload'), 200);
  },
  flood() {
    toWorkload();
    const block = Buffer.from(`${stamp()}flood ${'x'.repeat(900)}\r\n`.repeat(1000));
    pour(block);
  },
  'flood-without-newline'() {
    toWorkload();
    pour(Buffer.alloc(1024 * 1024, 'rcu '));
  },
  garbage() {
    let seed = 1;
    setInterval(() => {
      const block = Buffer.alloc(4096);
      for (let at = 0; at < block.length; at++) {
        seed = (seed * 1103515245 + 12345) & 0x7fffffff;
        block[at] = seed >> 16;
      }
      raw(block);
    }, 20);
  },
  killed() {
    toWorkload();
    later(100, () => process.kill(process.pid, 'SIGKILL'));
  },
  reset() {
    toWorkload();
    later(100, () => process.exit(0));
  },
  // Two guests: the one with the target serves, then crashes as a kernel does.
  'target-panics'() {
    if (!isTarget) {
      boot();
      mark('phase login');
      beat();
      return;
    }
    boot();
    mark('serving');
    later(500, () => {
      log('BUG: unable to handle page fault for address: ffffffff00000000');
      log('CPU: 0 PID: 99 Comm: tgtd Not tainted 6.1.0-56-amd64 #1');
      log('Call Trace:');
      log(' tcp_recvmsg+0x1/0x2');
      endOfPanic();
    });
  },
  'target-warns'() {
    if (isTarget) {
      boot();
      mark('serving');
      beat();
      later(300, warn);
    } else later(1200, BEHAVIOURS.survive as () => void);
  },
  'target-hangs'() {
    if (isTarget) {
      boot();
      mark('serving');
    } else {
      boot();
      mark('phase login');
      beat();
    }
  },
};

/** `MODE@PHASE`: QEMU does MODE (killed, hang, reset, stalls) when the guest has come to PHASE. */
function inPhase(what: string, phase: string): void {
  log(`Linux version ${expected.release} (fake)`, 5);
  const acts: Record<string, () => void> = {
    killed: () => process.kill(process.pid, 'SIGKILL'),
    reset: () => process.exit(0),
    hang: () => {},
    stalls: beat,
    warn,
    panic,
  };
  const steps = ['boot', 'modules', 'target', 'login', 'mount', 'workload', 'done'];
  const next = (at: number): void => {
    const step = steps[at] ?? '';
    if (step === 'boot') mark('up');
    else if (step === 'modules') {
      mark('phase modules');
      fact(
        `module.srcversion ${expected.module.srcversion}`,
        `module.buildId ${expected.module.buildId ?? ''}`,
      );
    } else if (step === 'done') {
      work();
      done();
    } else {
      mark(`phase ${step}`);
      if (step === 'mount') facts();
    }
    if (step === phase) later(30, acts[what] ?? (() => {}));
    else later(5, () => next(at + 1));
  };
  next(0);
}

const [what = '', phase] = mode.split('@');
if (phase !== undefined) inPhase(what, phase);
else {
  const behaviour = BEHAVIOURS[mode];
  if (!behaviour) {
    process.stderr.write(`fake-qemu: no behaviour ${mode}\n`);
    process.exit(9);
  }
  behaviour();
}
setInterval(() => {}, 1000);
