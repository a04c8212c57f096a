import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { checkFlattened } from '../../trial/flattened.js';
import { tempDir } from '../support/files.js';

const MIB = 2 ** 20;

function record(offset: bigint, bytes: bigint, data = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(16);
  head.writeBigInt64BE(offset, 0);
  head.writeBigInt64BE(bytes, 8);
  return Buffer.concat([head, data]);
}
const header = Buffer.alloc(4096);
header.write('makedumpfile');
const END = record(-1n, -1n);
const page = Buffer.alloc(4096);

test('a flattened dump of a guest is restored; one that asks for more than its memory is not', async (t) => {
  const dir = await tempDir(t);
  const check = async (...parts: Buffer[]): Promise<void> => {
    const file = join(dir, 'flat');
    await writeFile(file, Buffer.concat(parts));
    await checkFlattened(file, 64 * MIB);
  };
  await t.notThrowsAsync(check(header, record(0n, 4096n, page), record(8192n, 4096n, page), END));
  for (const [what, parts, pattern] of [
    ['8 TiB away', [header, record(2n ** 43n, 4096n, page), END], /8796093026304 bytes or more: more than/],
    ['large', [header, record(0n, 2n ** 40n, page), END], /more than the guest's memory/],
    ['before its beginning', [header, record(-4096n, 4096n, page), END], /a record of 4096 bytes at -4096/],
    ['of no bytes', [header, record(0n, 0n), END], /a record of 0 bytes at 0/],
    ['cut', [header, record(0n, 4096n, page)], /is cut: it has no end/],
    ['another file', [page, END], /does not begin as one/],
    ['empty', [], /does not begin as one/],
  ] as [string, Buffer[], RegExp][])
    await t.throwsAsync(check(...parts), { message: pattern }, what);
});
