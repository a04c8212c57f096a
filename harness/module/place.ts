import type { GateModule } from '../bug/bug.js';
import type { Kernel } from '../kernel/kernel.js';

/** What a module stands in for: this module of this kernel. */
export interface Place {
  kernel: Kernel;
  gate: GateModule;
}
