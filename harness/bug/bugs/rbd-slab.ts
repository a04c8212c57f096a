import type { Bug } from '../bug.js';
import { agHeaderCounters } from '../counters.js';
import { BY_REFERENCE } from '../gate-functions.js';
import { versionAtLeast } from '../release.js';

export const bug: Bug = {
  id: 'rbd-slab',
  summary:
    'Ceph RBD over a loopback: neighbouring slab objects are sent as one piece of a page, and read as one',
  sources: [
    '7e241f647dc7 (libceph: fall back to sendmsg for slab pages)',
    '40efc4dc7395 (libceph: use sendpage_ok() in ceph_tcp_sendpage())',
  ],
  leak: 'slab pages go to tcp_sendpage',
  gateFunctions: BY_REFERENCE,
  module: {
    name: 'libceph',
    path: 'net/ceph/libceph.ko',
    option: 'CEPH_LIB',
    dir: 'net/ceph',
    sources: ['messenger.c', '*.c', '*.h', 'crush/*.c', 'crush/*.h', 'Makefile'],
    makefile: 'own',
  },
  transport: 'rbd',
  targets: ['ceph-osd'],
  control: 'unpatched',
  copy: 'whole-objects',
  readIn: 'tcp_recvmsg',
  counters: agHeaderCounters,
  requestSectors: 2,
  known: (release) =>
    versionAtLeast(release, 5, 10) && !release.includes('.el')
      ? 'as shipped it checks for slab pages: another module was loaded'
      : null,
  remedies: ['a kernel with sendpage_ok() in libceph (5.10 and later)', 'the OSDs on other hosts'],
  shownBy: 'rbd-loopback',
  payload: 'xfs-headers',
};
