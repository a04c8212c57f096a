// The fault suite: every fault in every phase, after `loopanic setup`. Two guests at a time (test/support/fault-bench.ts).
export default {
  files: ['dist/test/faults/**/*.test.js'],
  concurrency: 1,
  workerThreads: false,
  timeout: '10m',
};
