import type { Target } from '../bug.js';

export const target: Target = {
  id: 'lio-fileio',
  summary: "LIO with a fileio backstore, the kernel's own iSCSI target",
  transport: 'iscsi',
  modules: ['configfs', 'target_core_mod', 'target_core_file', 'iscsi_target_mod'],
  // It looks for all of them as soon as one is used, and complains.
  optionalModules: ['target_core_iblock', 'target_core_file', 'target_core_pscsi', 'target_core_user'],
  receiver: { comm: /^iscsi_trx$/, words: 'iscsi_trx' },
};
