import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { UsageError } from '../base/errors.js';
import { contentKey, scratchDir } from '../base/files.js';
import type { Progress } from '../base/progress.js';
import { unpackPackage } from '../package/package-files.js';
import { rpmInfo } from '../package/rpm.js';
import { type DownloadedRpm, downloadRpm } from '../package/rpm-repository.js';
import { layOutBuildTree } from './build-tree.js';
import { type CatalogueEntry, catalogue, catalogueEntry, checkKernelId, located } from './catalogue.js';
import { fetchDebianKernel } from './debian.js';
import type { Kernel } from './kernel.js';
import { hasKernel, layOut, presentKernel, storeKernel, useKernel } from './store.js';

/** The kernel as it is on this host, or fetched now. Throws UsageError for an id that is neither here nor in the catalogue. */
export async function ensureKernel(id: string, progress: Progress): Promise<Kernel> {
  await checkKernelId(id);
  const present = await presentKernel(id);
  if (present) return present;
  if (!Object.hasOwn(await catalogue(), id))
    throw new UsageError(
      'incomplete-kernel',
      `kernel ${id} is damaged: 'loopanic kernel rm ${id}', and add it again`,
    );
  const entry = await catalogueEntry(id);
  if (entry.origin === 'built')
    throw new UsageError(
      'not-built',
      `kernel ${id} is not built yet: 'loopanic kernel fetch ${id}' does (a quarter of an hour on two cores)`,
    );
  return fetchKernel(id, progress);
}

/** Downloads a kernel of the catalogue: Debian's newest, or the packages that the entry names. `verify` false takes RPMs unchecked. */
export async function fetchKernel(id: string, progress: Progress, verify = true): Promise<Kernel> {
  const entry = await catalogueEntry(id);
  if (entry.origin === 'built') throw new UsageError('not-built', `kernel ${id} is built, not downloaded`);
  return progress.step(`kernel ${id}`, (update) =>
    entry.origin === 'debian'
      ? fetchDebianKernel(id, entry, update)
      : fetchRpmKernel(id, entry, update, verify),
  );
}

/** Kernel, headers and source, which belong together: a company's mirror may be out of reach later. */
async function fetchRpmKernel(
  id: string,
  entry: Extract<CatalogueEntry, { origin: 'rpm' }>,
  update: (text: string) => void,
  verify: boolean,
): Promise<Kernel> {
  await using scratch = await scratchDir('kernel');
  const got: DownloadedRpm[] = [];
  const get = async (ref: (typeof entry.kernel)[number]): Promise<DownloadedRpm> => {
    const rpm = await downloadRpm(await located(ref), scratch.path, update, verify);
    got.push(rpm);
    return rpm;
  };
  const kernels: DownloadedRpm[] = [];
  for (const ref of entry.kernel) kernels.push(await get(ref));
  const devel = entry.devel ? await get(entry.devel) : null;
  const source = entry.sources ? await get(entry.sources) : null;
  const key = `${entry.version}-${contentKey(...got.map(({ sha256 }) => sha256))}`;
  if (await hasKernel(id, key)) return useKernel(id, key);
  const out = join(scratch.path, 'out');
  await mkdir(out);
  for (const { file } of kernels) {
    update(`unpacking ${file.replace(/.*\//, '')}`);
    await unpackPackage(file, out);
  }
  const found = await layOut(out, id, update);
  if (found.release !== entry.release)
    throw new UsageError(
      'wrong-kernel',
      `${id}: the packages hold ${found.release}, not ${entry.release}: nothing was kept`,
    );
  if (devel)
    await layOutBuildTree(
      join(out, 'devel'),
      { devel: [devel.file], source: source?.file ?? null },
      found.release,
      update,
    );
  // A signature shows who made a package, not which: a mirror may hold another under the name.
  const packages = await Promise.all(
    got.map(async ({ file, sha256, signature }) => {
      const { name, version } = await rpmInfo(file);
      if (version !== entry.version)
        throw new UsageError(
          'wrong-kernel',
          `${file.replace(/.*\//, '')}: is ${name} ${version}, not ${entry.version}: nothing was kept`,
        );
      return { name, version, sha256, signature };
    }),
  );
  return await storeKernel(out, key, {
    id,
    origin: 'rpm',
    ...found,
    version: entry.version,
    packages,
    forced: [],
    fetchedAt: new Date().toISOString(),
  });
}
