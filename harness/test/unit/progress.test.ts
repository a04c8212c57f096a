import { PassThrough } from 'node:stream';
import test from 'ava';
import { liveReporter, type ProgressEvent, plainReporter, progressTo } from '../../base/progress.js';

test('steps are events: each has a number, and its end says whether it failed', async (t) => {
  const events: ProgressEvent[] = [];
  const progress = progressTo((event) => events.push(event));
  progress.line('a line');
  const first = progress.step('first', async (update) => {
    update('waiting');
    await Promise.resolve();
    return 1;
  });
  const second = progress.step('second', () => Promise.reject(new Error('no')));
  t.is(await first, 1);
  await t.throwsAsync(second, { message: 'no' });
  const told = events.map(({ kind, ...rest }) => `${kind} ${'step' in rest ? rest.step : ''}`.trim());
  t.deepEqual(told.sort(), ['begin 1', 'begin 2', 'end 1', 'end 2', 'line', 'update 1']);
  const ends = events.flatMap((event) => (event.kind === 'end' ? [[event.title, event.failed]] : []));
  t.deepEqual(ends.sort(), [
    ['first', false],
    ['second', true],
  ]);
});

test('a pipe sees an update every few seconds', (t) => {
  const stream = new PassThrough();
  const report = plainReporter(stream);
  report({ kind: 'begin', step: 1, title: 'trial' });
  for (const seconds of [1, 4, 6, 7, 12])
    report({ kind: 'update', step: 1, title: 'trial', text: `at ${seconds}`, seconds });
  report({ kind: 'end', step: 1, title: 'trial', seconds: 13, failed: false, text: '' });
  report({ kind: 'begin', step: 2, title: 'next' });
  report({ kind: 'end', step: 2, title: 'next', seconds: 0.5, failed: false, text: 'reproduced' });
  t.is(
    String(stream.read()),
    'trial …\ntrial: at 6 (6.0 s)\ntrial: at 12 (12.0 s)\ntrial: done in 13.0 s\nnext …\nnext: reproduced in 0.5 s\n',
  );
});

test('a terminal sees a live line for every step that runs, and what stays above them', async (t) => {
  const stream = Object.assign(new PassThrough(), {
    isTTY: true,
    columns: 100,
    rows: 30,
    cursorTo: () => true,
    clearLine: () => true,
    moveCursor: () => true,
  });
  let shown = '';
  stream.on('data', (chunk: Buffer) => {
    shown += chunk.toString();
  });
  const report = liveReporter(stream as unknown as NodeJS.WriteStream);
  report({ kind: 'begin', step: 1, title: 'one' });
  report({ kind: 'begin', step: 2, title: 'two' });
  report({ kind: 'update', step: 1, title: 'one', text: 'mount', seconds: 1 });
  report({ kind: 'line', text: 'a line that stays' });
  await new Promise((resolve) => setTimeout(resolve, 300));
  t.regex(shown, /one: mount \([\d.]+ s\)\n\s*two \([\d.]+ s\)/);
  t.regex(shown, /a line that stays\n/);
  report({ kind: 'end', step: 1, title: 'one', seconds: 3, failed: false, text: 'survived' });
  report({ kind: 'end', step: 2, title: 'two', seconds: 3, failed: true, text: '' });
  await new Promise((resolve) => setTimeout(resolve, 50));
  t.regex(shown, /✔ one: survived \(3\.0 s\)/);
  t.regex(shown, /✖ two \(3\.0 s\)/);
});
