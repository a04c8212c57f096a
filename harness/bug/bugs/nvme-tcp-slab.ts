import type { Bug } from '../bug.js';
import { headerReads } from '../counters.js';
import { BY_REFERENCE } from '../gate-functions.js';
import { nvmeTcp } from '../nvme-tcp.js';
import { versionAtLeast } from '../release.js';

export const bug: Bug = {
  id: 'nvme-tcp-slab',
  summary:
    'NVMe over TCP over a loopback: neighbouring slab objects are sent as one piece of a page, and read as one',
  sources: [
    "37c15219599f (nvme-tcp: don't use sendpage for SLAB pages)",
    '7d4194abfc4d (nvme-tcp: check page by sendpage_ok() before calling kernel_sendpage())',
  ],
  leak: 'slab pages go to tcp_sendpage',
  gateFunctions: BY_REFERENCE,
  module: nvmeTcp,
  transport: 'nvme-tcp',
  targets: ['nvmet'],
  control: 'unpatched',
  copy: 'whole-objects',
  readIn: 'tcp_recvmsg',
  // The block layer joins two pieces of a request for nvme only if they are neighbours and the first one begins a page (bio_will_gap() in
  // block/blk.h; the queue's virt boundary): whether any was joined is luck, and each that was is an occasion to panic.
  counters: [
    {
      key: 'merged',
      words: 'merged two-sector writes',
      bytes: 1024,
      tooFew: 'no two headers were neighbours, so there was no occasion to panic',
      least: () => 0,
      leastInAll: 1,
    },
    {
      key: 'headers',
      words: 'AG headers written',
      bytes: 512,
      tooFew: 'it did not try the trigger',
      least: (groups) => groups,
    },
    headerReads,
  ],
  requestSectors: 2,
  known: (release) =>
    versionAtLeast(release, 5, 9) && !release.includes('.el')
      ? 'as shipped it checks for slab pages: another module was loaded'
      : null,
  remedies: ['a kernel with sendpage_ok() in nvme-tcp (5.9 and later)', 'the target on another host'],
  shownBy: 'nvme-tcp-loopback',
  payload: 'xfs-headers',
};
