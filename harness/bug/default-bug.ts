/** The bug of scenarios, kernels and modules that name none. */
export const DEFAULT_BUG = 'iscsi-slab';
