import { copyFile, mkdir, readFile, readlink, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { InfraError } from '../base/errors.js';
import { buildOnce, scratchDir } from '../base/files.js';
import type { Progress } from '../base/progress.js';
import { AptWorkspace } from '../host/apt.js';
import { command, commandError } from '../host/command.js';
import { needProgram } from '../host/tools.js';
import type { Kernel } from './kernel.js';

/** What a module of this kernel is built against and from. */
export interface BuildTree {
  /** Folder for `make -C`. */
  headers: string;
  /** drivers/scsi/libiscsi_tcp.c and the headers beside it, from this kernel's own source. */
  source: string;
}

/** Files of the source package that a build of libiscsi_tcp needs. */
export const moduleSources = ['drivers/scsi/libiscsi_tcp.c', 'drivers/scsi/iscsi_tcp.h'] as const;

/**
 * Headers and source of exactly this kernel's version, from the suite's packages, unpacked into the kernel's folder on first use.
 * Throws InfraError if the suite no longer has that version.
 */
export async function ensureBuildTree(kernel: Kernel, progress: Progress): Promise<BuildTree> {
  const root = join(kernel.dir, 'build');
  const tree = {
    headers: join(root, 'usr/src', `linux-headers-${kernel.release}`),
    source: join(root, 'source'),
  };
  await buildOnce(root, (out) =>
    progress.step(`headers and source of ${kernel.id}`, async (update) => {
      update(`reading ${kernel.suite}'s package lists`);
      const apt = await AptWorkspace.open(kernel.suite);
      await using scratch = await scratchDir('headers');
      const fetch = async (name: string): Promise<string> => {
        update(`downloading ${name} ${kernel.version}`);
        return apt.download({ name, version: kernel.version }, scratch.path).catch((error: unknown) => {
          throw new InfraError(
            'version-gone',
            `${kernel.suite} no longer has ${name} ${kernel.version}: run 'loopanic kernel fetch ${kernel.id}' for the current kernel`,
            error,
          );
        });
      };
      const headers = `linux-headers-${kernel.release}`;
      const common = headers.replace(/-amd64$/, '-common');
      const kbuild = `linux-kbuild-${kernel.release.split('.').slice(0, 2).join('.')}`;
      const dpkg = await needProgram('dpkg-deb');
      await mkdir(out, { recursive: true });
      for (const name of [headers, common, kbuild]) {
        const deb = await fetch(name);
        update(`unpacking ${name}`);
        await command(dpkg, ['-x', deb, out]);
      }
      await relocate(out, headers, common);
      const deb = await fetch(kernel.sourcePackage);
      update('unpacking the module source (one pass over the whole kernel source)');
      await extractSources(deb, join(out, 'source'), scratch.path);
    }),
  );
  return tree;
}

/** Debian's headers name /usr/src/…-common by its absolute path; ours lie elsewhere. */
async function relocate(out: string, headers: string, common: string): Promise<void> {
  const makefile = join(out, 'usr/src', headers, 'Makefile');
  await writeFile(
    makefile,
    (await readFile(makefile, 'utf8')).replace(/\/usr\/src\/\S*-common/, `$(CURDIR)/../${common}`),
  );
  for (const dir of [headers, common])
    for (const name of ['scripts', 'tools']) {
      const link = join(out, 'usr/src', dir, name);
      const to = await readlink(link).catch(() => null);
      if (!to?.startsWith('/')) continue;
      await rm(link);
      await symlink(`../../..${to}`, link);
    }
}

async function extractSources(deb: string, target: string, scratch: string): Promise<void> {
  const [dpkg, tar, xz] = [await needProgram('dpkg-deb'), await needProgram('tar'), await needProgram('xz')];
  const listing = await command(dpkg, ['-c', deb]);
  const archive = /\.\/usr\/src\/(linux-source-[\d.]+)\.tar\.xz/.exec(listing);
  if (!archive?.[1]) throw new InfraError('odd-package', `${deb} holds no kernel source archive`);
  try {
    await execa(dpkg, ['--fsys-tarfile', deb], { buffer: { stdout: false }, stripFinalNewline: false })
      .pipe(tar, ['-xO', archive[0]], { buffer: { stdout: false } })
      .pipe(xz, ['-dc'], { buffer: { stdout: false } })
      .pipe(tar, ['-x', '-C', scratch, ...moduleSources.map((file) => `${archive[1]}/${file}`)]);
  } catch (error) {
    throw commandError('unpacking the kernel source', error);
  }
  for (const file of moduleSources) {
    const to = join(target, file);
    await mkdir(join(to, '..'), { recursive: true });
    await copyFile(join(scratch, archive[1], file), to);
  }
}
