import type { Target } from '../bug.js';
import { target as lio } from './lio.js';

export const target: Target = {
  ...lio,
  id: 'lio-fileio',
  summary: "LIO with a fileio backstore, the kernel's own iSCSI target",
  modules: lio.modules.map((name) => (name === 'target_core_iblock' ? 'target_core_file' : name)),
};
