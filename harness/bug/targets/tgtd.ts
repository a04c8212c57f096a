import type { Target } from '../bug.js';

export const target: Target = {
  id: 'tgtd',
  summary: 'tgtd, the iSCSI target in user space (package tgt)',
  transport: 'iscsi',
  modules: [],
  receiver: { comm: /^tgtd$/, words: 'tgtd' },
};
