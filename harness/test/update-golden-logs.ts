import { writeFile } from 'node:fs/promises';
import { goldenLogs, headsFound } from './support/golden-log.js';

// `npm run test:logs`: compares what is found in each golden log with its head; with --update, writes the heads anew, for a person to read.
const logs = await goldenLogs();
const heads = await headsFound(logs);
const say = (text: string): void => void process.stdout.write(`${text}\n`);
let differ = 0;
for (const [index, { name, file, expected, log }] of logs.entries()) {
  const head = heads[index] ?? '';
  if (head === expected) continue;
  differ++;
  say(`${name}:\n- ${expected.replaceAll('\n', '\n- ')}\n+ ${head.replaceAll('\n', '\n+ ')}`);
  if (process.argv.includes('--update'))
    await writeFile(file, Buffer.concat([Buffer.from(`${head}\n\n`), log]));
}
say(`${logs.length} logs, ${differ} differ${process.argv.includes('--update') ? ', updated' : ''}`);
process.exitCode = differ > 0 && !process.argv.includes('--update') ? 1 : 0;
