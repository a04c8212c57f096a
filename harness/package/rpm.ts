import { symlink } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { UsageError } from '../base/errors.js';
import { scratchDir } from '../base/files.js';
import { command, host } from '../host/command.js';
import { needProgram } from '../host/tools.js';

/** A public key that packages may be signed with: its file, and the fingerprint that the file must have. */
export interface SigningKey {
  /** What people call it. */
  name: string;
  file: string;
  /** 40 hex digits; null: the user vouches for the file. */
  fingerprint: string | null;
}

/** What an RPM says of itself. */
export interface RpmInfo {
  name: string;
  version: string;
  /** Version and release. */
  arch: string;
}

/** Reads an RPM's header. */
export async function rpmInfo(path: string): Promise<RpmInfo> {
  await using db = await scratchDir('rpmdb');
  const text = await command(await needProgram('rpm'), [
    ...['--dbpath', db.path, '--nosignature', '--nodigest', '-qp', '--qf'],
    ...['%{NAME}\\n%{VERSION}-%{RELEASE}\\n%{ARCH}\\n', await plainly(path, db.path)],
  ]).catch((error: unknown) => {
    throw new UsageError('damaged-package', `${path}: its header cannot be read`, error);
  });
  const [name = '', version = '', arch = ''] = text.split('\n');
  return { name, version, arch };
}

/** A link with a plain name: rpm takes a name for options, and for a pattern. */
async function plainly(path: string, dir: string): Promise<string> {
  const link = join(dir, 'package.rpm');
  await symlink(resolve(path), link);
  return link;
}

/** What a check of an RPM against keys gave. `unknown-key`, `unsigned`: its digests hold, but nobody known vouches for it. */
type RpmCheck =
  | { state: 'verified'; by: string }
  | { state: 'unknown-key'; text: string }
  | { state: 'unsigned'; text: string }
  | { state: 'damaged'; text: string };

/**
 * Checks an RPM's digests and its signature, with rpmkeys in a database of its own that holds nothing but these keys.
 * Throws UsageError if a key file is not the key that it should be.
 */
async function checkRpm(path: string, keys: readonly SigningKey[]): Promise<RpmCheck> {
  const rpmkeys = await needProgram('rpmkeys');
  await using db = await scratchDir('rpmdb');
  for (const key of keys) {
    await checkKey(key, db.path);
    await command(rpmkeys, ['--dbpath', db.path, '--import', key.file]);
  }
  const plain = await plainly(path, db.path);
  const checked = await host(
    rpmkeys,
    ['--dbpath', db.path, '--define', '_pkgverify_level all', '-Kv', plain],
    { reject: false, all: true },
  );
  const lines = checked.all.split('\n').map((line) => line.trim());
  const signed = lines.find((line) => /signature, key id/i.test(line));
  const bad = lines.find((line) => /: BAD/.test(line));
  if (bad) return { state: 'damaged', text: bad.replace(/ \(Expected.*/, '') };
  if (!checked.failed && signed) return { state: 'verified', by: signed.replace(/: OK$/, '') };
  if (signed) return { state: 'unknown-key', text: signed.replace(/: NOKEY$/, '') };
  if (lines.some((line) => /signature: NOTFOUND/.test(line)))
    return { state: 'unsigned', text: 'it is not signed' };
  return {
    state: 'damaged',
    text: lines.find((line) => line && !line.startsWith(plain)) ?? 'rpmkeys refused it',
  };
}

/** As checkRpm, but only `verified` passes. Throws UsageError with what is wrong. */
export async function requireSigned(path: string, keys: readonly SigningKey[]): Promise<string> {
  const check = await checkRpm(path, keys);
  if (check.state === 'verified') return check.by;
  const names = [...new Set(keys.map(({ name }) => name))].join(' or ');
  const why = {
    damaged: `is damaged: ${check.state === 'damaged' ? check.text : ''}`,
    unsigned: `is not signed, so nothing shows that it comes from ${names}`,
    'unknown-key': `is signed by another key than ${names}: ${check.state === 'unknown-key' ? check.text : ''}`,
  }[check.state];
  throw new UsageError(
    'bad-signature',
    `${basename(path)} ${why}; --key FILE names another key, --no-verify takes it as it is`,
  );
}

/** Throws UsageError if a key file is not exactly the key that it should be. */
export async function requireKey(key: SigningKey): Promise<void> {
  await using home = await scratchDir('gnupg');
  await checkKey(key, home.path);
}

async function checkKey({ name, file, fingerprint }: SigningKey, home: string): Promise<void> {
  const args = ['--homedir', home, '--batch', '--no-options', '--show-keys', '--with-colons', file];
  const text = await command(await needProgram('gpg'), args).catch((error: unknown) => {
    throw new UsageError('bad-key', `${file}: is not an OpenPGP public key`, error);
  });
  const found = [...text.matchAll(/^pub:[^\n]*\nfpr:+([0-9A-F]{40}):/gm)].map(([, print]) => print ?? '');
  if (found.length === 0) throw new UsageError('bad-key', `${file}: holds no OpenPGP public key`);
  // A second key in the file would vouch as well.
  const odd = fingerprint === null ? undefined : found.find((print) => print !== fingerprint);
  if (odd !== undefined)
    throw new UsageError(
      'bad-key',
      `${file}: is not ${name}'s key alone: it holds ${odd}, and should hold ${fingerprint} only`,
    );
}
