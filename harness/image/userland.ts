import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import * as z from 'zod';
import { firstLine, InfraError, UsageError } from '../base/errors.js';
import { buildOnce, contentKey, exists, scratchDir } from '../base/files.js';
import { suggestion } from '../base/nearest.js';
import { cacheDir, imagesDir } from '../base/paths.js';
import type { Progress } from '../base/progress.js';
import { readYaml } from '../base/yaml-file.js';
import { debianSources } from '../host/apt.js';
import { needProgram } from '../host/tools.js';

const recipeSchema = z.strictObject({
  suite: z.string(),
  packages: z.array(z.string()).min(1),
  programs: z.array(z.string().startsWith('/')).min(1),
  capture: z.array(z.string().startsWith('/')).min(1),
});

/** A guest userland on this host, cached by the content of its recipe: two cpio archives in one folder. */
export interface Userland {
  name: string;
  /** For the guest. */
  archive: string;
  /** For its crash kernel. */
  capture: string;
}

const ARCHIVES = { archive: 'userland.cpio', capture: 'capture.cpio' } as const;

/** Names of the images that come with loopanic. */
export async function imageNames(): Promise<string[]> {
  const entries = await readdir(imagesDir, { withFileTypes: true });
  const names: string[] = [];
  for (const entry of entries)
    if (entry.isDirectory() && (await exists(join(imagesDir, entry.name, 'image.yaml'))))
      names.push(entry.name);
  return names.sort();
}

/** Where the archives of an image are or will be. Throws UsageError for an unknown name. */
export async function userlandPath(name: string): Promise<string> {
  const names = await imageNames();
  if (!names.includes(name))
    throw new UsageError('unknown-image', `unknown image ${name}${suggestion(name, names)}`);
  const dir = join(imagesDir, name);
  const parts = await Promise.all(['image.yaml', 'assemble'].map((file) => readFile(join(dir, file))));
  return cacheDir('images', `${name}-${contentKey(...parts)}`);
}

/** The image's userland, built with mmdebstrap now if it is not in the cache or if `rebuild` asks for it. */
export async function ensureUserland(name: string, progress: Progress, rebuild = false): Promise<Userland> {
  const dir = await userlandPath(name);
  if (rebuild || !(await exists(dir))) {
    const recipe = await readYaml(join(imagesDir, name, 'image.yaml'), recipeSchema);
    const build = (out: string): Promise<void> => buildUserland(name, recipe, out, progress);
    await buildOnce(dir, build, rebuild);
  }
  return { name, archive: join(dir, ARCHIVES.archive), capture: join(dir, ARCHIVES.capture) };
}

async function buildUserland(
  name: string,
  recipe: z.infer<typeof recipeSchema>,
  out: string,
  progress: Progress,
): Promise<void> {
  await progress.step(`image ${name}`, async (update) => {
    const [mmdebstrap, setpriv] = [await needProgram('mmdebstrap'), await needProgram('setpriv')];
    await needProgram('cpio');
    // As root, leftovers of a killed build stay in the cache, where they are swept. In its unprivileged mode mmdebstrap needs a folder that
    // other users can enter, which the cache is not.
    await using scratch = await scratchDir('image');
    const tmp = process.getuid?.() === 0 ? { TMPDIR: scratch.path } : {};
    const quote = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`;
    const hooks = [
      { archive: 'userland', programs: recipe.programs },
      { archive: 'capture', programs: recipe.capture },
    ].flatMap(({ archive, programs }) => [
      `--extract-hook=${quote(join(imagesDir, name, 'assemble'))} "$1" ${archive} ${programs.map(quote).join(' ')}`,
      `--extract-hook=download /${archive}.cpio ${quote(join(out, `${archive}.cpio`))}`,
    ]);
    await mkdir(out);
    const child = execa(
      setpriv,
      [
        '--pdeathsig',
        'TERM',
        '--',
        mmdebstrap,
        '--variant=extract',
        // Nothing in the root needs /proc, /sys or /dev/shm, and clearing away a killed build must never meet a mount.
        '--skip=chroot/mount',
        '--architectures=amd64',
        '--format=null',
        `--include=${recipe.packages.join(',')}`,
        ...hooks,
        recipe.suite,
        '-',
        '-',
      ],
      {
        input: `${(await debianSources(recipe.suite)).join('\n')}\n`,
        env: { ...tmp, LC_ALL: 'C' },
        stdout: 'ignore',
      },
    );
    const said: string[] = [];
    try {
      for await (const line of child.iterable({ from: 'stderr' })) {
        said.push(String(line));
        update(String(line).replace(/^[A-Z]: /, ''));
      }
      await child;
    } catch (error) {
      const words =
        said.find((line) => line.startsWith('assemble:')) ??
        said.find((line) => line.startsWith('E:')) ??
        said.at(-1) ??
        firstLine(error);
      throw new InfraError('image-build-failed', `image ${name} could not be built: ${words}`, error);
    }
  });
}
