import type { Bug } from '../bug.js';
import { nvmeTcp } from '../nvme-tcp.js';

export const bug: Bug = {
  id: 'nvme-tcp-pages',
  summary:
    'NVMe over TCP over a loopback: a piece of a request that spans two compound pages is sent as one, and read across the end of the first',
  sources: [
    'openebs/mayastor#1330, openebs/mayastor#1693, longhorn/longhorn#8121',
    '7769887817c3 (nvme-tcp: use sendmsg(MSG_SPLICE_PAGES) instead of sendpage), in 6.5',
  ],
  leak: 'pieces that run across the end of a compound page go to one kernel_sendpage',
  module: nvmeTcp,
  transport: 'nvme-tcp',
  targets: ['nvmet'],
  control: 'stock',
  copy: 'across-pages',
  counters: [
    {
      key: 'spans',
      words: 'writes across two huge pages',
      tooFew: 'it did not try the trigger',
      least: () => 1,
    },
    {
      key: 'writes',
      words: 'direct writes',
      tooFew: 'the workload did not do its work',
      least: () => 1,
    },
  ],
  requestSectors: 16,
  payload: 'any',
};
