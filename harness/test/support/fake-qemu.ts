import { appendFileSync, readFileSync } from 'node:fs';
import { Socket } from 'node:net';

// Stands on PATH as qemu-system-x86_64 in tests of what a real QEMU won't do on demand. It answers QMP on descriptor 3 and "boots" as
// FAKE_QEMU says; what it prints carries the trial's own token, taken from the initramfs as a real guest takes it.
const args = process.argv.slice(2);
const mode = process.env.FAKE_QEMU ?? 'silent';
if (args.includes('--version')) {
  process.stdout.write('QEMU emulator version 0.0.0 (fake)\n');
  process.exit(0);
}
if (mode === 'refuses') {
  process.stderr.write('qemu-system-x86_64: -m 1024M: cannot allocate memory\n');
  process.exit(1);
}
const logOf = (id: string): string => {
  const chardev = args.find((arg) => arg.startsWith(`file,id=${id},`)) ?? '';
  return /path=(.*),append=on$/.exec(chardev)?.[1] ?? '/dev/null';
};
const initrd = args[args.indexOf('-initrd') + 1] ?? '';
const token = /TOKEN='(\w+)'/.exec(readFileSync(initrd, 'latin1'))?.[1] ?? '';
const print = (...lines: string[]): void =>
  appendFileSync(logOf('console'), lines.map((line) => `${line}\r\n`).join(''));
const mark = (said: string): string => `[    5.000000] loopanic:${token}: ${said}`;

const qmp = new Socket({ fd: 3 });
qmp.write(`${JSON.stringify({ QMP: { version: {}, capabilities: [] } })}\n`);
qmp.on('data', (chunk) => {
  for (const line of chunk.toString().split('\n').filter(Boolean))
    qmp.write(`${JSON.stringify({ return: {}, id: JSON.parse(line).id })}\n`);
});

const banner = '[    0.000000] Linux version 6.1.0-56-amd64 (fake)';
switch (mode) {
  case 'silent':
    print(banner);
    break;
  case 'stalls':
    print(banner, mark('phase modules'), mark('phase mount'));
    setInterval(() => appendFileSync(logOf('guest'), `@${token} alive\n`), 200);
    break;
  case 'dies':
    print(banner, mark('phase modules'));
    process.stderr.write('qemu-system-x86_64: fatal: host memory fault\n');
    setTimeout(() => process.exit(1), 300);
    break;
  case 'step-fails':
    print(
      banner,
      mark('phase mount'),
      mark('failed mount: mount -t xfs /dev/sda /mnt (exit 32): wrong fs type'),
    );
    break;
  case 'lies':
    print(banner, mark('phase workload'), mark('done cycles=0 merged=0 bytes=0'));
    break;
  case 'target-panics':
    // Two guests: the one with the target serves, then crashes as a kernel does.
    if (/ROLE='target'/.test(readFileSync(initrd, 'latin1'))) {
      print(banner, mark('phase modules'), mark('serving'));
      setTimeout(
        () =>
          print(
            '[    7.000000] BUG: unable to handle page fault for address: ffffffff00000000',
            '[    7.000100] CPU: 0 PID: 99 Comm: tgtd Not tainted 6.1.0-56-amd64 #1',
            '[    7.000200] Call Trace:',
            '[    7.000300]  tcp_recvmsg+0x1/0x2',
            '[    7.000400] Kernel panic - not syncing: Fatal exception',
            '[    7.000500] ---[ end Kernel panic - not syncing: Fatal exception ]---',
          ),
        500,
      );
    } else print(banner, mark('phase modules'), mark('phase workload'));
    break;
  case 'half-panic':
    print(
      banner,
      mark('phase workload'),
      "[    6.000000] usercopy: Kernel memory exposure attempt detected from SLUB object 'kmalloc-512' (offset 0, size 1024)!",
      '[    6.000100] kernel BUG at mm/usercopy.c:101!',
    );
    break;
}
setInterval(() => {}, 1000);
