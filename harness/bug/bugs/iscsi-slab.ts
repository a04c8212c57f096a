import type { Bug } from '../bug.js';
import { agHeaderCounters } from '../counters.js';

export const bug: Bug = {
  id: 'iscsi-slab',
  summary:
    'iSCSI over a loopback: neighbouring slab objects are sent as one piece of a page, and read as one',
  sources: [
    'the report: CentOS 7.6, 3.10.0-957.27.2.el7',
    '08b11eaccfcf (libiscsi: fall back to sendmsg for slab pages)',
    'RHSA-2020:0834 (BZ#1784826)',
  ],
  leak: 'slab pages go to tcp_sendpage',
  module: {
    name: 'libiscsi_tcp',
    path: 'drivers/scsi/libiscsi_tcp.ko',
    option: 'ISCSI_TCP',
    dir: 'drivers/scsi',
    sources: ['libiscsi_tcp.c', 'iscsi_tcp.h'],
    makefile: 'obj-m := libiscsi_tcp.o\n',
  },
  transport: 'iscsi',
  targets: ['tgtd', 'lio', 'lio-fileio'],
  control: 'unpatched',
  copy: 'whole-objects',
  counters: agHeaderCounters,
  requestSectors: 2,
  payload: 'xfs-headers',
};
