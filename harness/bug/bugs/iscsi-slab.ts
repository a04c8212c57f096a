import type { Bug } from '../bug.js';
import { agHeaderCounters } from '../counters.js';
import { BY_REFERENCE } from '../gate-functions.js';
import { versionAtLeast } from '../release.js';

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
  gateFunctions: BY_REFERENCE,
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
  readIn: 'tcp_recvmsg',
  counters: agHeaderCounters,
  requestSectors: 2,
  known: (release) => {
    const [, build] = /^3\.10\.0-(\d+)\S*\.el7/.exec(release) ?? [];
    if (build !== undefined)
      return Number(build) < 1062
        ? 'CentOS and RHEL 7 before 7.7: nothing keeps slab pages from tcp_sendpage'
        : Number(build) > 1062
          ? 'CentOS and RHEL 7.8 and later have !PageSlab(compound_head(…)), by their public sources'
          : 'CentOS and RHEL 7.7: unfixed as released; RHSA-2020:0834 names 3.10.0-1062.18.1';
    return versionAtLeast(release, 5, 10) && !release.includes('.el')
      ? 'as shipped it has sendpage_ok(): another module was loaded'
      : null;
  },
  remedies: [
    'a kernel with the fix: 5.10 and later, RHEL 7.8 and later',
    'data digests on both ends (DataDigest CRC32C): the initiator then copies what it sends; costs CPU',
    'XFS with 4 KiB sectors (mkfs.xfs -s size=4096): AG headers are whole pages then; for new file systems',
    'hardened_usercopy=off on the kernel command line: the check is off for everything else, too',
    'the target on another host',
  ],
  shownBy: 'xfs-loopback',
  payload: 'xfs-headers',
};
