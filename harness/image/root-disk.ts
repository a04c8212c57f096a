import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { InfraError, UsageError } from '../base/errors.js';
import { scratchDir } from '../base/files.js';
import { imagesDir } from '../base/paths.js';
import type { Progress } from '../base/progress.js';
import { shellQuote as quote } from '../base/shell-word.js';
import { command, commandError, host } from '../host/command.js';
import { findProgram, needProgram } from '../host/tools.js';
import { requireKey } from '../package/rpm.js';
import { mmdebstrap } from './mmdebstrap.js';
import type { DiskRecipe } from './recipe.js';

const BLOCK_BYTES = 4096;
const INODES = 120_000;

/**
 * Builds a root disk: the distribution's packages, loopanic.service, and what the image's `customize` sets, as an ext2 file system
 * without a partition table. It has no kernel: every trial brings its own. Throws InfraError if packages cannot be had or are not signed
 * as the recipe says.
 */
export async function buildRootDisk(
  name: string,
  recipe: DiskRecipe,
  target: string,
  progress: Progress,
): Promise<void> {
  await progress.step(`image ${name}`, async (update) => {
    const genext2fs = await needProgram('genext2fs');
    await using scratch = await scratchDir('image');
    const tar = join(scratch.path, 'root.tar');
    if (recipe.bootstrap === 'mmdebstrap') await debianRoot(name, recipe, tar, scratch.path, update);
    else await rpmRoot(name, recipe, tar, scratch.path, update);
    update('making the file system');
    const blocks = (recipe.sizeMiB * 2 ** 20) / BLOCK_BYTES;
    const whole = join(scratch.path, 'root.img');
    const made = await host(
      genext2fs,
      ['-B', String(BLOCK_BYTES), '-b', String(blocks), '-N', String(INODES), '-m', '0', '-a', tar, whole],
      { reject: false, all: true },
    );
    if (made.failed) throw commandError('genext2fs', made);
    await mkdir(dirname(target), { recursive: true });
    await command('cp', ['--sparse=always', whole, target]);
  });
}

async function debianRoot(
  name: string,
  recipe: Extract<DiskRecipe, { bootstrap: 'mmdebstrap' }>,
  target: string,
  temp: string,
  update: (text: string) => void,
): Promise<void> {
  const customize = quote(join(imagesDir, name, 'customize'));
  const unit = quote(join(imagesDir, 'guest/loopanic.service'));
  await mmdebstrap(
    {
      name,
      suite: recipe.suite,
      packages: recipe.packages,
      options: [
        '--variant=minbase',
        '--format=tar',
        `--customize-hook=copy-in ${unit} /etc/systemd/system`,
        `--customize-hook=${customize} "$1"`,
      ],
      target,
      temp,
    },
    update,
  );
}

/** Root of an RPM distribution, by dnf. Only packages that are signed with the repository's own pinned key get in. */
async function rpmRoot(
  name: string,
  recipe: Extract<DiskRecipe, { bootstrap: 'dnf' }>,
  target: string,
  temp: string,
  update: (text: string) => void,
): Promise<void> {
  const dnf = await findProgram('dnf');
  if (!dnf) throw new UsageError('missing-tool', `image ${name} is made with dnf: install the package dnf`);
  if (process.getuid?.() !== 0)
    throw new UsageError(
      'not-root',
      `image ${name}: dnf installs into a folder as root only: run this as root`,
    );
  const repos = join(temp, 'repos');
  const root = join(temp, 'root');
  await mkdir(repos);
  await mkdir(join(root, 'etc/systemd/system'), { recursive: true });
  for (const { name: repo, url, override, key, fingerprint } of recipe.repositories) {
    const file = resolve(imagesDir, key);
    await requireKey({ name: repo, file, fingerprint });
    const lines = [
      `[${repo}]`,
      `name=${repo}`,
      `baseurl=${process.env[override] || url}`,
      'gpgcheck=1',
      `gpgkey=file://${file}`,
    ];
    await writeFile(join(repos, `${repo}.repo`), `${lines.join('\n')}\n`);
  }
  const child = host(
    dnf,
    [
      ...['-y', `--installroot=${root}`, `--releasever=${recipe.release}`, '--forcearch=x86_64'],
      ...[`--setopt=reposdir=${repos}`, `--setopt=cachedir=${join(temp, 'cache')}`, '--setopt=keepcache=0'],
      ...[
        '--setopt=install_weak_deps=False',
        '--setopt=tsflags=nodocs',
        '--setopt=timeout=60',
        '--setopt=minrate=1',
      ],
      ...['--disableplugin=*', '--noplugins', 'install', ...recipe.packages],
    ],
    { reject: false, all: true },
  );
  const said: string[] = [];
  for await (const line of child.iterable({ from: 'all' })) {
    said.push(String(line));
    update(String(line).trim());
  }
  const done = await child;
  if (done.failed) {
    const words =
      said.findLast((line) => /error|fail|unable|cannot|GPG/i.test(line)) ??
      said.at(-1) ??
      'dnf said nothing';
    throw new InfraError('image-build-failed', `image ${name} could not be built: ${words.trim()}`);
  }
  await command('cp', [join(imagesDir, 'guest/loopanic.service'), join(root, 'etc/systemd/system')]);
  await command(join(imagesDir, name, 'customize'), [root]);
  update('packing');
  await command(await needProgram('tar'), ['-cf', target, '--numeric-owner', '-C', root, '.']);
}
