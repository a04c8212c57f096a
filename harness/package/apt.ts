import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { InfraError, UsageError } from '../base/errors.js';
import { exists } from '../base/files.js';
import { cacheDir } from '../base/paths.js';
import { command } from '../host/command.js';
import { needProgram } from '../host/tools.js';

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

/**
 * Lines for a sources.list of one Debian suite. The mirrors are the host's own (as `apt-get indextargets` tells them), so that a
 * company mirror or proxy just works; `LOOPANIC_DEBIAN_MIRROR` (a base URL) overrides them and serves hosts that are not Debian.
 */
export async function debianSources(suite: string): Promise<string[]> {
  const signed = (await exists(KEYRING)) ? `[signed-by=${KEYRING}] ` : '';
  const override = process.env.LOOPANIC_DEBIAN_MIRROR;
  if (override) return [`deb ${signed}${override} ${suite} main`];
  const apt = await needProgram('apt-get');
  const stdout = await command(apt, [
    'indextargets',
    '--format',
    '$(SITE)|$(LABEL)',
    'Created-By: Packages',
    'Origin: Debian',
  ]);
  const sites = new Map<string, string>();
  for (const row of stdout.split('\n')) {
    const [site, label] = row.split('|');
    if (site && label && !sites.has(label)) sites.set(label, site);
  }
  const main = sites.get('Debian');
  if (!main)
    throw new UsageError(
      'no-debian-mirror',
      "this host's apt knows no Debian mirror: run 'apt-get update', or set LOOPANIC_DEBIAN_MIRROR to a mirror's base URL",
    );
  const lines = [`deb ${signed}${main} ${suite} main`];
  // Backports and sid are whole by themselves.
  if (suite.includes('-') || suite === 'sid') return lines;
  lines.push(`deb ${signed}${main} ${suite}-updates main`);
  const security = sites.get('Debian-Security');
  if (security) lines.push(`deb ${signed}${security} ${suite}-security main`);
  return lines;
}

/** One version of a package that the suite offers. */
export interface PackageVersion {
  name: string;
  version: string;
}

/** An apt of our own for one suite: downloads packages without installing them and without touching the host's apt. */
export class AptWorkspace {
  readonly #root: string;
  readonly #options: string[];

  private constructor(root: string, options: string[]) {
    this.#root = root;
    this.#options = options;
  }

  /** Prepares the workspace and fetches the suite's package lists. */
  static async open(suite: string): Promise<AptWorkspace> {
    const root = cacheDir('apt', suite);
    for (const dir of ['state/lists/partial', 'cache/archives/partial'])
      await mkdir(join(root, dir), { recursive: true, mode: 0o700 });
    await writeFile(join(root, 'sources.list'), `${(await debianSources(suite)).join('\n')}\n`);
    await writeFile(join(root, 'status'), '');
    const set = (key: string, value: string): string[] => ['-o', `${key}=${value}`];
    const apt = new AptWorkspace(root, [
      ...set('Dir::Etc::sourcelist', join(root, 'sources.list')),
      ...set('Dir::Etc::sourceparts', '/dev/null'),
      ...set('Dir::State', join(root, 'state')),
      ...set('Dir::State::status', join(root, 'status')),
      ...set('Dir::Cache', join(root, 'cache')),
      ...set('APT::Architecture', 'amd64'),
      ...set('APT::Architectures', 'amd64'),
      ...set('APT::Sandbox::User', ''),
      ...set('Acquire::Languages', 'none'),
    ]);
    await apt.#run('apt-get', ['update', '--error-on=any']);
    return apt;
  }

  async #run(program: 'apt-get' | 'apt-cache', args: string[], cwd = this.#root): Promise<string> {
    const path = (await needProgram('apt-get')).replace(/apt-get$/, program);
    return command(path, [...this.#options, ...args], { cwd });
  }

  /** The newest version of a package, and its first dependency whose name matches `follow` instead if that is given. */
  async newest(name: string, follow?: RegExp): Promise<PackageVersion> {
    const text = await this.#run('apt-cache', ['show', '--no-all-versions', name]);
    if (follow) {
      const depends = /^Depends: (.*)$/m.exec(text)?.[1] ?? '';
      const next = depends
        .split(/[,|]/)
        .map((entry) => entry.trim().split(' ')[0] ?? '')
        .find((entry) => follow.test(entry));
      if (!next)
        throw new InfraError('apt-no-package', `package ${name} depends on nothing like ${follow.source}`);
      return this.newest(next);
    }
    const version = /^Version: (.*)$/m.exec(text)?.[1];
    if (!version) throw new InfraError('apt-no-package', `the suite has no package ${name}`);
    return { name, version };
  }

  /** Names of the packages that a package depends on, first alternatives only. */
  async dependencies({ name, version }: PackageVersion): Promise<string[]> {
    const text = await this.#run('apt-cache', ['show', `${name}=${version}`]);
    const depends = /^Depends: (.*)$/m.exec(text)?.[1] ?? '';
    return depends.split(',').map((entry) => entry.trim().split(/[ |(]/)[0] ?? '');
  }

  /** Downloads one version of a package into `dir` and returns the file's path. */
  async download(wanted: PackageVersion, dir: string): Promise<string> {
    await mkdir(dir, { recursive: true });
    await this.#run('apt-get', ['download', `${wanted.name}=${wanted.version}`], dir);
    const file = (await readdir(dir)).find(
      (entry) => entry.startsWith(`${wanted.name}_`) && entry.endsWith('.deb'),
    );
    if (!file) throw new InfraError('apt-no-file', `apt-get download ${wanted.name} left no file`);
    return join(dir, file);
  }
}
