import { join } from 'node:path';
import { InfraError } from '../base/errors.js';
import { scratchDir } from '../base/files.js';
import { AptWorkspace } from '../package/apt.js';
import { unpackPackage } from '../package/package-files.js';
import type { CatalogueEntry } from './catalogue.js';
import type { Kernel } from './kernel.js';
import { hasKernel, layOut, storeKernel, useKernel } from './store.js';

/** Downloads the suite's newest version of a kernel and unpacks it into the cache. Nothing is installed on the host. */
export async function fetchDebianKernel(
  id: string,
  entry: Extract<CatalogueEntry, { origin: 'debian' }>,
  update: (text: string) => void,
): Promise<Kernel> {
  update(`reading ${entry.suite}'s package lists`);
  const apt = await AptWorkspace.open(entry.suite);
  const wanted = await apt.newest(entry.image, /^linux-image-\d/);
  if (await hasKernel(id, wanted.version)) return useKernel(id, wanted.version);
  await using scratch = await scratchDir('kernel');
  update(`downloading ${wanted.name} ${wanted.version}`);
  const deb = await apt.download(wanted, scratch.path);
  update(`unpacking ${wanted.name} ${wanted.version}`);
  const out = join(scratch.path, 'out');
  await unpackPackage(deb, out);
  const found = await layOut(out, wanted.name, update);
  return await storeKernel(out, wanted.version, {
    id,
    origin: 'debian',
    ...found,
    version: wanted.version,
    suite: entry.suite,
    sourcePackage: entry.source,
    packages: [{ ...wanted, signature: "apt, by the suite's signed lists" }],
    forced: [],
    fetchedAt: new Date().toISOString(),
  });
}

/** Packages that modules of a kernel are built against: its headers, and the headers and tools that those depend on. */
export async function headerPackages({ suite = '', version, release }: Kernel): Promise<string[]> {
  const apt = await AptWorkspace.open(suite);
  const headers = `linux-headers-${release}`;
  const wanted = await apt.dependencies({ name: headers, version }).catch(() => []);
  return [headers, ...wanted.filter((name) => /^linux-(headers-.*-common|kbuild-)/.test(name))];
}

/**
 * Downloads packages of exactly one version; of the build tools, which a suite has in one version for all its kernels, at least that one, as
 * the headers ask for it. Throws InfraError if the suite has moved on.
 */
export async function debianPackages(
  { id, suite, version, names }: { id: string; suite: string; version: string; names: readonly string[] },
  dir: string,
  update: (text: string) => void,
): Promise<string[]> {
  update(`reading ${suite}'s package lists`);
  const apt = await AptWorkspace.open(suite);
  const files: string[] = [];
  for (const name of names) {
    update(`downloading ${name} ${version}`);
    files.push(
      await apt.download({ name, version }, dir).catch(async (error: unknown) => {
        if (name.startsWith('linux-kbuild-')) return apt.download(await apt.newest(name), dir);
        throw new InfraError(
          'version-gone',
          `${suite} no longer has ${name} ${version}: run 'loopanic kernel fetch ${id}' for the current kernel`,
          error,
        );
      }),
    );
  }
  return files;
}
