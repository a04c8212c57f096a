import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';
import { UsageError } from '../base/errors.js';
import { buildOnce, contentKey, exists } from '../base/files.js';
import { suggestion } from '../base/nearest.js';
import { cacheDir, imagesDir } from '../base/paths.js';
import type { Progress } from '../base/progress.js';
import { readYaml } from '../base/yaml-file.js';
import { type DiskRecipe, recipeSchema } from './recipe.js';
import { buildRootDisk } from './root-disk.js';
import { buildUserland } from './userland.js';

/** A guest image on this host, cached by the content of its recipe. */
export interface GuestImage {
  name: string;
  /** Names this build. */
  key: string;
  /** cpio archive that a guest's initramfs begins with: the whole userland, or what brings up the root disk. */
  archive: string;
  /** cpio archive of the crash kernel's userland. */
  capture: string;
  /** ext2 root disk, never written to; null if the guest lives in its initramfs. */
  disk: string | null;
  /** Modules that its guests load beside those of every guest. */
  modules: readonly string[];
  /** Shell functions that its guests do things with in their own way. */
  guestScript: string;
}

const FILES = { archive: 'userland.cpio', capture: 'capture.cpio', disk: 'root.img' } as const;
/** Brings what a disk's initramfs and every crash kernel need. */
const BASE_IMAGE = 'minimal';

/** Names of the images that come with loopanic. */
export async function imageNames(): Promise<string[]> {
  const entries = await readdir(imagesDir, { withFileTypes: true });
  const names: string[] = [];
  for (const entry of entries)
    if (entry.isDirectory() && (await exists(join(imagesDir, entry.name, 'image.yaml'))))
      names.push(entry.name);
  return names.sort();
}

/** Where an image is or will be. Throws UsageError for an unknown name. */
export async function imagePath(name: string): Promise<string> {
  const names = await imageNames();
  if (!names.includes(name))
    throw new UsageError('unknown-image', `unknown image ${name}${suggestion(name, names)}`);
  const dir = join(imagesDir, name);
  const { kind } = await recipeOf(name);
  const parts: Buffer[] = [];
  for (const file of ['image.yaml', 'assemble', 'customize'])
    if (await exists(join(dir, file))) parts.push(await readFile(join(dir, file)));
  for (const other of await likenesses(name))
    for (const file of ['image.yaml', 'assemble'])
      if (await exists(join(imagesDir, other, file)))
        parts.push(await readFile(join(imagesDir, other, file)));
  const unit = await readFile(join(imagesDir, 'guest/loopanic.service'));
  return cacheDir('images', `${name}-${contentKey(...parts, ...(kind === 'disk' ? [unit] : []))}`);
}

const recipeOf = (name: string) =>
  readYaml(join(imagesDir, name, 'image.yaml'), recipeSchema, {
    key: 'like',
    find: async (other) => join(imagesDir, other, 'image.yaml'),
  });

/** The images that one is like, nearest first; recipeOf() refuses a circle. */
async function likenesses(name: string): Promise<string[]> {
  const { like } = await readYaml(
    join(imagesDir, name, 'image.yaml'),
    z.looseObject({ like: z.string().optional() }),
  );
  return like === undefined ? [] : [like, ...(await likenesses(like))];
}

/** A script of an image: its own, or that of the nearest image that it is like. */
async function scriptOf(name: string, script: string): Promise<string> {
  for (const owner of [name, ...(await likenesses(name))])
    if (await exists(join(imagesDir, owner, script))) return join(imagesDir, owner, script);
  return join(imagesDir, name, script);
}

/** The image, built now if it is not in the cache or if `rebuild` asks for it. */
export async function ensureImage(name: string, progress: Progress, rebuild = false): Promise<GuestImage> {
  const dir = await imagePath(name);
  const recipe = await recipeOf(name);
  if (rebuild || !(await exists(dir)))
    await buildOnce(
      dir,
      async (out) =>
        recipe.kind === 'disk'
          ? buildRootDisk(name, recipe, join(out, FILES.disk), progress)
          : buildUserland(name, recipe, await scriptOf(name, 'assemble'), out, progress),
      rebuild,
    );
  const own = { name, key: dir.replace(/.*\//, ''), guestScript: await scriptOf(name, 'guest.sh') };
  if (recipe.kind === 'disk') return { ...own, ...(await diskParts(dir, progress)) };
  return {
    ...own,
    archive: join(dir, FILES.archive),
    capture: join(dir, FILES.capture),
    disk: null,
    modules: [],
  };
}

async function diskParts(
  dir: string,
  progress: Progress,
): Promise<Pick<GuestImage, 'archive' | 'capture' | 'disk' | 'modules'>> {
  const { capture } = await ensureImage(BASE_IMAGE, progress);
  // The crash kernel's few programs are enough to find and mount a disk.
  return { archive: capture, capture, disk: join(dir, FILES.disk), modules: ['ext4'] };
}

export type { DiskRecipe };
