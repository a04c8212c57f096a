/** How the guest's instructions are executed. */
export type Accel = 'kvm' | 'tcg';

/** Everything that QEMU needs to know. Paths are the host's. */
export interface VmSpec {
  accel: Accel;
  cpus: number;
  /** CPUs that could be plugged in, if more than `cpus`. */
  possibleCpus?: number;
  memoryMiB: number;
  kernel: string;
  kernelArgs: string[];
  /** Files for what a crash kernel hands out through virtio ports of these names. */
  dumpPorts?: { dmesg: string; vmcore: string };
  /** Raw disk for the guest's /dev/vda; guests write to a snapshot that is gone with QEMU. */
  disk?: string;
  /** A private network with one other guest, the guest's eth1: a UNIX socket that one of them makes and the other joins. */
  link?: { socket: string; end: 'makes' | 'joins' };
  /** Raw root disk, /dev/vdb; a snapshot too. */
  rootDisk?: string;
}

/** File descriptors that QEMU inherits: its control channel, and the initramfs, which has no name on disk. */
export const FD = { qmp: 3, initramfs: 4 } as const;

/** Names of a guest's disks at QEMU. */
export const DRIVE = { lun: 'lun', root: 'root' } as const;

/**
 * QEMU's arguments for a guest. The guest's network is user mode with `restrict=on`: nothing leaves it but answers to the one forwarded
 * port on 127.0.0.1, whose number QEMU chooses. QEMU writes both serial ports to files: they survive the harness, and a regular file
 * never makes QEMU wait. (Over a socket, a reader that lags makes QEMU 7.2 double characters: at least 11 lines in 30 panics; none with
 * files, in 23.)
 */
export function qemuArgs(spec: VmSpec, logs: { console: string; guest: string }): string[] {
  const port = (id: string, path: string): string[] => [
    ...['-chardev', `file,id=${id},path=${comma(path)},append=on`, '-serial', `chardev:${id}`],
  ];
  const smp = [`cpus=${spec.cpus}`];
  if (spec.possibleCpus !== undefined && spec.possibleCpus > spec.cpus)
    smp.push(`maxcpus=${spec.possibleCpus}`);
  return [
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    ...['-name', 'loopanic-guest'],
    ...['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'],
    ...['-machine', 'pc', '-accel', spec.accel === 'tcg' ? 'tcg,thread=multi' : 'kvm', '-cpu', 'max'],
    ...['-smp', smp.join(','), '-m', `${spec.memoryMiB}M`],
    ...['-chardev', `socket,id=qmp,fd=${FD.qmp}`, '-mon', 'chardev=qmp,mode=control'],
    ...port('console', logs.console),
    ...port('guest', logs.guest),
    ...(spec.dumpPorts ? ['-device', 'virtio-serial-pci'] : []),
    ...Object.entries(spec.dumpPorts ?? {}).flatMap(([name, path]) => [
      ...['-chardev', `file,id=${name},path=${comma(path)}`],
      ...['-device', `virtserialport,chardev=${name},name=${name}`],
    ]),
    ...['-device', 'vmcoreinfo'],
    ...['-netdev', 'user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:22'],
    ...['-device', 'virtio-net-pci,netdev=net,romfile='],
    ...(spec.link === undefined
      ? []
      : [
          ...[
            '-netdev',
            `stream,id=link,server=${spec.link.end === 'makes' ? 'on' : 'off'},addr.type=unix,addr.path=${comma(spec.link.socket)}`,
          ],
          ...[
            '-device',
            'virtio-net-pci,netdev=link,romfile=,mac=52:54:00:12:34:' +
              (spec.link.end === 'makes' ? '61' : '62'),
          ],
        ]),
    ...[
      { id: DRIVE.lun, disk: spec.disk },
      { id: DRIVE.root, disk: spec.rootDisk },
    ].flatMap(({ id, disk }) =>
      disk === undefined
        ? []
        : [
            '-drive',
            `file=${comma(disk)},if=virtio,id=${id},format=raw,snapshot=on,cache=unsafe,discard=unmap`,
          ],
    ),
    ...['-kernel', spec.kernel, '-initrd', `/dev/fd/${FD.initramfs}`, '-append', spec.kernelArgs.join(' ')],
  ];
}

/** QEMU's option parser takes a doubled comma for a literal one. */
function comma(path: string): string {
  return path.replaceAll(',', ',,');
}
