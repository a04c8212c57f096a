import { join } from 'node:path';
import { UsageError } from '../base/errors.js';
import { exists } from '../base/files.js';
import { readGiven } from '../base/given-file.js';
import { host } from '../host/command.js';
import { whyNot } from './makefile.js';

/** What a dkms.conf changes in the build of its folder. */
export interface DkmsConf {
  /** Patches for this kernel, below the folder's patches/, in order. */
  patches: string[];
}

/** Settings that say where a module goes, how it is called and when it is built anew: nothing of what it is. */
const HARMLESS =
  /^(?:PACKAGE_NAME|PACKAGE_VERSION|BUILT_MODULE_NAME|DEST_MODULE_NAME|DEST_MODULE_LOCATION|AUTOINSTALL|REMAKE_INITRD|CLEAN|STRIP|NO_WEAK_MODULES|MODULES_CONF\w*|OBSOLETE_BY|SIGN_\w+)$/;
/** One word of a shell: quoted, or not; and one that the shell leaves as it is. */
const QUOTED = /^(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([^\s"';&|]*))\s*(?:#.*)?$/;
const PLAIN = /^(?:"((?:[^"$`\\]|\\[^"$`\\])*)"|'([^']*)'|([^\s"'$`\\;&|()]*))\s*(?:#.*)?$/;

/**
 * Reads the dkms.conf of a folder: null if there is none. Format: shell assignments, some with an index (dkms(8)). What it sets and this
 * harness does not do as dkms would is refused by name. Throws UsageError.
 */
export async function readDkmsConf(dir: string, release: string): Promise<DkmsConf | null> {
  const file = join(dir, 'dkms.conf');
  if (!(await exists(file))) return null;
  const text = (await readGiven(file, 1)).toString();
  const patches = new Map<number, string>();
  const onlyFor = new Map<number, string>();
  for (const [index, raw] of text.split('\n').entries()) {
    const line = raw.trim();
    if (line === '' || line.startsWith('#')) continue;
    const refuse = (why: string): UsageError =>
      new UsageError('dkms-refused', `${file}:${index + 1}: ${why}`);
    const noAssignment = refuse(
      `${line}: is no plain assignment, and this is no shell: build the module, and give it as a .ko`,
    );
    const [, name, at = '0', value = ''] = /^([A-Z_]+)(?:\[(\d+)\])?=(.*)$/.exec(line) ?? [];
    if (name === undefined) throw noAssignment;
    // One word, whatever the shell makes of it: nothing else may hide behind it.
    if (HARMLESS.test(name) && QUOTED.test(value)) continue;
    const word = name === 'MAKE' ? QUOTED.exec(value)?.slice(1) : PLAIN.exec(value)?.slice(1);
    const text = word?.find((part) => part !== undefined);
    if (text === undefined) throw noAssignment;
    if (name === 'PATCH') patches.set(Number(at), text);
    else if (name === 'PATCH_MATCH') onlyFor.set(Number(at), text);
    else if (name === 'MAKE' && /\bmake\b/.test(text) && !/[`]|\$\(/.test(text) && whyNot(text) === null)
      continue;
    else if (name === 'BUILT_MODULE_LOCATION' && ['', '.', './'].includes(text)) continue;
    else if (name === 'BUILD_EXCLUSIVE_KERNEL' && (await matches(text, release, refuse))) continue;
    else throw refuse(`${line}: is not honoured here: build the module with dkms, and give it as a .ko`);
  }
  const wanted: string[] = [];
  for (const [at, name] of [...patches].sort(([a], [b]) => a - b)) {
    const only = onlyFor.get(at);
    const refuse = (why: string): UsageError => new UsageError('dkms-refused', `${file}: ${why}`);
    if (only === undefined || (await matches(only, release, refuse))) wanted.push(name);
  }
  for (const name of wanted)
    if (!(await exists(join(dir, 'patches', name))))
      throw new UsageError(
        'dkms-refused',
        `${file}: names the patch ${name}, which is not in ${join(dir, 'patches')}`,
      );
  return { patches: wanted };
}

/** As the shell's `[[ $release =~ pattern ]]`: an extended regular expression, of a program that can be stopped. */
async function matches(
  pattern: string,
  release: string,
  refuse: (why: string) => UsageError,
): Promise<boolean> {
  const { exitCode } = await host('grep', ['-qE', '-e', pattern], {
    input: `${release}\n`,
    reject: false,
    timeout: 5000,
  });
  if (exitCode === 0 || exitCode === 1) return exitCode === 0;
  throw refuse(`${pattern}: is no regular expression, or takes too long`);
}
