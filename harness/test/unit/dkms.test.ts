import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { readDkmsConf } from '../../module/dkms.js';
import { tempDir } from '../support/files.js';

async function conf(t: ExecutionContext, text: string, patches: readonly string[] = []): Promise<string> {
  const dir = await tempDir(t);
  await writeFile(join(dir, 'dkms.conf'), text);
  await mkdir(join(dir, 'patches'));
  for (const name of patches) await writeFile(join(dir, 'patches', name), '');
  return dir;
}

test('dkms.conf: patches in the order of their numbers, those of other kernels left out', async (t) => {
  const text = [
    'PACKAGE_NAME="own-$USER" # a name',
    'PATCH[1]=second.patch',
    "PATCH[0]='first.patch'",
    'PATCH[2]="other.patch"',
    'PATCH_MATCH[2]="^5\\."',
    'PATCH_MATCH[1]="^6\\.1\\."',
    'MAKE[0]="make -C $kernel_source_dir M=$dkms_tree/$PACKAGE_NAME/$PACKAGE_VERSION/build -j4 modules"',
    'CLEAN="make clean; rm -f x"',
  ].join('\n');
  const dir = await conf(t, text, ['first.patch', 'second.patch', 'other.patch']);
  t.deepEqual(await readDkmsConf(dir, '6.1.0-56-amd64'), { patches: ['first.patch', 'second.patch'] });
});

for (const [line, why] of [
  ['PACKAGE_NAME=own; PATCH[0]=own.patch', /is no plain assignment/],
  ['PATCH+=(own.patch)', /is no plain assignment/],
  ['PATCH=(own.patch)', /is no plain assignment/],
  ['if [ -e x ]; then', /is no plain assignment/],
  ['. ./more.conf', /is no plain assignment/],
  ['kdir=/x', /is no plain assignment/],
  ['PATCH[0]=$other.patch', /is no plain assignment/],
  ['MAKE[0]="make -C $kernel_source_dir EXTRA_CFLAGS=-DX"', /is not honoured here/],
  ['MAKE[0]="./configure && make"', /is not honoured here/],
  ['PRE_BUILD=x.sh', /is not honoured here/],
] as const)
  test(`dkms.conf: ${line} is refused with its line`, async (t) => {
    const error = await t.throwsAsync(
      readDkmsConf(await conf(t, `# words\n${line}\n`, ['own.patch']), '6.1'),
    );
    t.true(error.message.includes(`dkms.conf:2: ${line}: `), error.message);
    t.regex(error.message, why);
  });

test('dkms.conf: a patch that it names and that is not there', async (t) => {
  const dir = await conf(t, 'PATCH[0]=own.patch\n');
  await t.throwsAsync(readDkmsConf(dir, '6.1'), {
    message: /names the patch own\.patch, which is not in \S+patches$/,
  });
});
