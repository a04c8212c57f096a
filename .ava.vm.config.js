// Tests that boot guests: one at a time, after `loopanic setup`.
export default {
  files: ['dist/test/vm/**/*.test.js'],
  concurrency: 1,
  workerThreads: false,
  timeout: '5m',
};
