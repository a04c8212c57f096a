import type { GateModule } from './bug.js';

/** It holds the gates of two bugs. */
export const nvmeTcp: GateModule = {
  name: 'nvme_tcp',
  path: 'drivers/nvme/host/nvme-tcp.ko',
  option: 'NVME_TCP',
  dir: 'drivers/nvme/host',
  sources: ['tcp.c', 'nvme.h', 'fabrics.h', 'trace.h'],
  makefile: 'obj-m := nvme-tcp.o\nnvme-tcp-y := tcp.o\n',
};
