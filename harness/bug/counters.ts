import type { WorkCounter } from './bug.js';

/** Of the workloads that have AGF and AGI written as neighbours. */
export const headerReads: WorkCounter = {
  key: 'reads',
  words: 'reads of AG headers from the LUN',
  tooFew: 'they were in memory, where the trigger needs them read anew',
  least: () => 0,
};

/** Where the block layer merges AGF and AGI of a group into one request, wherever they lie in memory. */
export const agHeaderCounters: readonly WorkCounter[] = [
  {
    key: 'merged',
    words: 'merged two-sector writes',
    bytes: 1024,
    tooFew: 'it did not try the trigger',
    least: (groups) => Math.floor(groups / 2),
  },
  headerReads,
];
