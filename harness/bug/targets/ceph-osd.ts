import type { Target } from '../bug.js';

export const target: Target = {
  id: 'ceph-osd',
  summary: 'a Ceph cluster of one monitor and one OSD (memstore, messenger v1)',
  transport: 'rbd',
  modules: [],
  receiver: { comm: /^msgr-worker-\d+$/, words: 'msgr-worker' },
  image: 'ceph',
  ownStorage: true,
};
