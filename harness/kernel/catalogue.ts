import { mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';
import { InfraError, UsageError } from '../base/errors.js';
import { exists, scratchDir, writeFileAtomic, writeJson } from '../base/files.js';
import { suggestion } from '../base/nearest.js';
import { cacheDir, imagesDir } from '../base/paths.js';
import type { Progress } from '../base/progress.js';
import { readYaml } from '../base/yaml-file.js';
import { AptWorkspace } from '../host/apt.js';
import { command } from '../host/command.js';
import { needProgram } from '../host/tools.js';
import { type Kernel, kernelRecordSchema } from './kernel.js';
import { writeUnpackedImage } from './unpack-image.js';

const entrySchema = z.strictObject({
  origin: z.literal('debian'),
  suite: z.string(),
  image: z.string().describe("the suite's meta package"),
  source: z.string().describe('the source package'),
  summary: z.string(),
});
const catalogueSchema = z.record(z.string(), entrySchema);

export type CatalogueEntry = z.infer<typeof entrySchema>;

/** All kernels that loopanic knows how to get, by id. */
export function catalogue(): Promise<Record<string, CatalogueEntry>> {
  return readYaml(join(imagesDir, 'kernels.yaml'), catalogueSchema);
}

/** The catalogue's entry for an id. Throws UsageError with the nearest ids. */
export async function catalogueEntry(id: string): Promise<CatalogueEntry> {
  const known = await catalogue();
  const entry = Object.hasOwn(known, id) ? known[id] : undefined;
  if (!entry)
    throw new UsageError('unknown-kernel', `unknown kernel ${id}${suggestion(id, Object.keys(known))}`);
  return entry;
}

const kernelsDir = (id: string): string => cacheDir('kernels', id);

/** The kernel that was fetched last under this id, or null. */
export async function presentKernel(id: string): Promise<Kernel | null> {
  const version = await readFile(join(kernelsDir(id), 'current'), 'utf8').catch(() => null);
  if (version === null) return null;
  const dir = join(kernelsDir(id), version.trim());
  const text = await readFile(join(dir, 'kernel.json'), 'utf8').catch(() => null);
  if (text === null) return null;
  const record = kernelRecordSchema.parse(JSON.parse(text));
  const vmlinux = join(dir, 'vmlinux-boot');
  return {
    ...record,
    dir,
    vmlinuz: join(dir, 'boot', `vmlinuz-${record.release}`),
    vmlinux: (await exists(vmlinux)) ? vmlinux : null,
    config: join(dir, 'boot', `config-${record.release}`),
    modulesRoot: dir,
  };
}

/** The kernel, fetched now if it is not there yet. */
export async function ensureKernel(id: string, progress: Progress): Promise<Kernel> {
  await catalogueEntry(id);
  return (await presentKernel(id)) ?? fetchKernel(id, progress);
}

/** Downloads the newest version that the suite has and unpacks it into the cache. Nothing is installed on the host. */
export async function fetchKernel(id: string, progress: Progress): Promise<Kernel> {
  const entry = await catalogueEntry(id);
  return progress.step(`kernel ${id}`, async (update) => {
    update(`reading ${entry.suite}'s package lists`);
    const apt = await AptWorkspace.open(entry.suite);
    const wanted = await apt.newest(entry.image, /^linux-image-\d/);
    const dir = join(kernelsDir(id), wanted.version);
    if (!(await exists(join(dir, 'kernel.json')))) {
      await using scratch = await scratchDir('kernel');
      update(`downloading ${wanted.name} ${wanted.version}`);
      const deb = await apt.download(wanted, scratch.path);
      update(`unpacking ${wanted.name} ${wanted.version}`);
      const out = join(scratch.path, 'out');
      await command(await needProgram('dpkg-deb'), ['-x', deb, out]);
      const release = await soleRelease(out);
      update('indexing modules');
      await command(await needProgram('depmod'), ['-b', out, release]);
      await writeUnpackedImage(join(out, 'boot', `vmlinuz-${release}`), join(out, 'vmlinux-boot'));
      await rm(join(out, 'usr'), { recursive: true, force: true });
      await writeJson(join(out, 'kernel.json'), {
        id,
        origin: entry.origin,
        release,
        version: wanted.version,
        suite: entry.suite,
        sourcePackage: entry.source,
        packages: [wanted],
        fetchedAt: new Date().toISOString(),
      });
      await mkdir(kernelsDir(id), { recursive: true, mode: 0o700 });
      await rename(out, dir).catch(async (error: unknown) => {
        if (!(await exists(join(dir, 'kernel.json')))) throw error;
      });
    }
    await writeFileAtomic(join(kernelsDir(id), 'current'), `${wanted.version}\n`);
    const kernel = await presentKernel(id);
    if (!kernel)
      throw new InfraError('kernel-lost', `kernel ${id} vanished from the cache while it was fetched`);
    return kernel;
  });
}

async function soleRelease(root: string): Promise<string> {
  const releases = await readdir(join(root, 'lib/modules')).catch(() => []);
  const [release] = releases;
  if (release === undefined || releases.length !== 1)
    throw new InfraError('odd-package', `the kernel package has ${releases.length} module trees, not one`);
  return release;
}
