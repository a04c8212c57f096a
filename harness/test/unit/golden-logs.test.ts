import test from 'ava';
import { goldenLogs, headsFound } from '../support/golden-log.js';

test('each golden log shows what its head says (`npm run test:logs -- --update` writes heads anew)', async (t) => {
  const logs = await goldenLogs();
  t.true(logs.length >= 20);
  const heads = await headsFound(logs);
  for (const [index, { name, expected }] of logs.entries()) t.is(heads[index], expected, name);
});
