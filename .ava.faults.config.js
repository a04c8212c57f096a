// The fault suite, after `loopanic setup`: every fault in every phase. What takes minutes is left to `npm run test:faults` (LOOPANIC_SLOW_FAULTS).
export default {
  files: ['dist/test/faults/**/*.test.js', ...(process.env.LOOPANIC_SLOW_FAULTS ? [] : ['!dist/test/faults/slow.test.js'])],
  concurrency: 1,
  workerThreads: false,
  timeout: '10m',
};
