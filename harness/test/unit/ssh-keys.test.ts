import { chmod, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import ssh2 from 'ssh2';
import { makeSshKeys } from '../../vm/ssh.js';
import { tempDir } from '../support/files.js';

test('every key can be read back, by ssh2 and as its own public half', (t) => {
  // Many: of 1,500 that ssh2 had made 8 could not.
  for (let i = 0; i < 600; i++) {
    const keys = makeSshKeys();
    for (const text of [keys.privateKey, keys.hostKey.openssh]) {
      const key = ssh2.utils.parseKey(text);
      if (key instanceof Error) return t.fail(`key ${i}: ${key.message}`);
    }
    const user = ssh2.utils.parseKey(keys.privateKey) as ssh2.ParsedKey;
    if (!keys.publicKey.includes(user.getPublicSSH().toString('base64')))
      return t.fail(`key ${i}: another public half`);
  }
  return t.pass();
});

test('OpenSSH reads them', async (t) => {
  const keygen = await execa('ssh-keygen', ['-?'], { reject: false });
  if (keygen.code === 'ENOENT') return t.log('no ssh-keygen on this host: not tried');
  const { privateKey, publicKey } = makeSshKeys();
  const file = join(await tempDir(t), 'key');
  await writeFile(file, privateKey);
  await chmod(file, 0o600);
  const { stdout } = await execa('ssh-keygen', ['-y', '-f', file]);
  t.is(stdout.trim(), publicKey);
});
