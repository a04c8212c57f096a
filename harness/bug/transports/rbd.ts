import type { Transport } from '../bug.js';

export const transport: Transport = {
  id: 'rbd',
  summary: "the kernel's RADOS block device (krbd, over libceph)",
  // Of the OSDs; the monitor's is 6789.
  ports: [6800, 7568],
  disk: 'rbd0',
  modules: ['rbd'],
  options: [{ name: 'BLK_DEV_RBD', modular: true, purpose: 'rbd' }],
  parameters: {},
  sender: { comm: /ceph-msgr/, words: "libceph's work queue" },
};
