import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { chmod, mkdir, readdir, rm, stat, utimes } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { firstLine, InfraError, LoopanicError } from '../base/errors.js';
import { buildOnce, exists, scratchDir, sha256OfFile } from '../base/files.js';
import { cacheDir } from '../base/paths.js';
import type { Progress } from '../base/progress.js';
import { bugOf } from '../bug/family.js';
import { command } from '../host/command.js';
import { ensureCaptureArchive } from '../image/capture.js';
import { ensureImage, type GuestImage, imagePath } from '../image/image.js';
import { ensureModulesArchives } from '../image/kernel-modules.js';
import { ensureLun } from '../image/lun.js';
import { catalogue } from '../kernel/catalogue.js';
import { ensureKernel } from '../kernel/fetch.js';
import { type Kernel, stockModulePath } from '../kernel/kernel.js';
import { presentKernel } from '../kernel/store.js';
import { scriptsKey } from '../run/cell-key.js';
import type { TrialFiles, TrialPlan } from '../trial/plan.js';
import type { CoordinatorClient } from './client.js';
import type { Assignment, Part } from './protocol.js';
import { remembered } from './remembered.js';
import { describeSparse, writeSparse } from './sparse.js';

const DAY_MS = 24 * 3600 * 1000;
/** What came from coordinators is kept for so many days without use. */
const KEPT_DAYS = 14;
/** No disk of a trial is larger. */
const MOST_DISK_BYTES = 2 ** 40;

const partFile = (name: string): string => cacheDir('parts', name);

/** Removes parts that nobody has used for long. */
export async function sweepParts(): Promise<void> {
  for (const name of await readdir(partFile('')).catch(() => [])) {
    const info = await stat(partFile(name)).catch(() => null);
    if (info && Date.now() - info.mtimeMs > KEPT_DAYS * DAY_MS) await rm(partFile(name), { force: true });
  }
}

/** A trial's files on this host, and what is to be removed behind it. */
export interface GatheredParts extends AsyncDisposable {
  files: TrialFiles;
  /** Names of those that came from the coordinator now. */
  fetched: string[];
}

/**
 * Brings a trial's parts together: what this host's own catalogue can make is made here, and used if its content is the coordinator's (of a LUN:
 * its recipe); everything else comes from there and must have the hash that it named. Nothing of it is run outside a guest. Throws InfraError.
 */
export async function gatherParts(
  { plan, parts }: Assignment,
  coordinator: CoordinatorClient,
  progress: Progress,
): Promise<GatheredParts> {
  const fetched: string[] = [];
  const own = await knownParts({ plan, parts }, progress);
  const once = async (what: string, name: string, get: (out: string) => Promise<void>): Promise<string> => {
    const target = partFile(name);
    // Trials beside each other want the same.
    const isNew = await whileMade(target, () => buildOnce(target, get));
    if (isNew) fetched.push(what);
    const now = new Date();
    await utimes(target, now, now);
    return target;
  };
  const fetch = (what: string, part: Part): Promise<string> =>
    once(what, part.sha256, (out) => fetchPart(coordinator, part, out));
  /** This host's own, if it is the very same. */
  const one = async (what: string, part: Part, mine: string | null | undefined): Promise<string> =>
    mine && (await exists(mine)) && (await knownHash(mine, sha256OfFile)) === part.sha256
      ? mine
      : fetch(what, part);
  /** A root disk is part of the image: by its content. A LUN that this host made has the same recipe by the same mkfs. */
  const rootDisk = async (): Promise<string | null> => {
    if (parts.rootDisk === null) return null;
    const part = await coordinator.disk(parts.rootDisk);
    const mine = own.image?.disk;
    const hash = async (path: string): Promise<string> => (await describeSparse(path)).sha256;
    if (mine && (await knownHash(mine, hash)) === part.sha256) return mine;
    return disk('the root disk', parts.rootDisk, part);
  };
  const lun = async (): Promise<string | null> => {
    const key = plan.parts.lun;
    if (key === null || own.lun !== null) return own.lun;
    return disk('the LUN', key, await coordinator.disk(key));
  };
  const disk = (what: string, key: string, part: Part): Promise<string> =>
    once(what, `disk-${part.sha256}`, (out) => fetchDisk(coordinator, key, part, out));
  const { kernel } = own;
  const scratch = await scratchDir('workload');
  try {
    const files: TrialFiles = {
      kernel: await one('the kernel', parts.kernel, kernel && (kernel.vmlinux ?? kernel.vmlinuz)),
      crash: parts.crash && {
        kernel: await one('the crash kernel', parts.crash.kernel, kernel?.vmlinuz),
        initramfs: await one("the crash kernel's initramfs", parts.crash.initramfs, own.capture),
      },
      userland: await one('the image', parts.userland, own.image?.archive),
      rootDisk: await rootDisk(),
      imageScript: await fetch("the image's script", parts.imageScript),
      modules: await one("the kernel's modules", parts.modules, own.modules),
      lun: await lun(),
      module: await one(
        'the module under test',
        parts.module,
        kernel && stockModulePath(kernel, bugOf(plan.scenario.bug).module),
      ),
      workload: scratch.path,
    };
    for (const { name, isExecutable, ...part } of parts.workload) {
      const target = join(scratch.path, name);
      await mkdir(dirname(target), { recursive: true });
      await command('cp', ['--', await fetch('the workload', part), target]);
      await chmod(target, isExecutable ? 0o700 : 0o600);
    }
    await checkScripts(plan, files);
    return {
      files,
      fetched: [...new Set(fetched)],
      [Symbol.asyncDispose]: () => scratch[Symbol.asyncDispose](),
    };
  } catch (error) {
    await scratch[Symbol.asyncDispose]();
    if (error instanceof LoopanicError) throw error;
    throw new InfraError('part-lost', firstLine(error), error);
  }
}

const hashes = new Map<string, Promise<string>>();

/** Hash of a file of this host's cache, where nothing is written again under its name. */
async function knownHash(path: string, hash: (path: string) => Promise<string>): Promise<string> {
  const { mtimeMs, size, ino } = await stat(path);
  return remembered(hashes, `${path} ${mtimeMs} ${size} ${ino}`, () => hash(path));
}

const making = new Map<string, Promise<boolean>>();

/** Makes a file once for all who want it at the same time. True for the one who began. */
async function whileMade(target: string, make: () => Promise<boolean>): Promise<boolean> {
  const there = making.get(target);
  if (there) {
    // What failed for another run may be had for this one.
    await there.catch(() => {});
    if (await exists(target)) return false;
    return whileMade(target, make);
  }
  const made = make();
  making.set(target, made);
  return made.finally(() => making.delete(target));
}

/** What runs in the guest must be what its coordinator named: also of the scripts that this host adds, which may have been changed since. */
async function checkScripts(plan: TrialPlan, files: TrialFiles): Promise<void> {
  const scripts = await scriptsKey({ workload: files.workload, imageScript: files.imageScript });
  if (scripts !== plan.parts.scripts)
    throw new InfraError(
      'part-lost',
      'the scripts that run in the guest are others than its coordinator has: was loopanic changed while this worker runs? start it again',
    );
}

interface OwnParts {
  kernel: Kernel | null;
  image: GuestImage | null;
  modules: string | null;
  capture: string | null;
  lun: string | null;
}

const ownByKeys = new Map<string, Promise<OwnParts>>();

/** The same for trials of the same parts, while these are there. */
async function knownParts(assignment: Assignment, progress: Progress): Promise<OwnParts> {
  const { plan, parts } = assignment;
  const { kernel, image, modules, capture, lun } = plan.parts;
  const key = JSON.stringify([plan.kernel, kernel, parts.image, image, modules, capture, lun]);
  const known = await remembered(ownByKeys, key, () => ownParts(assignment, progress));
  const files = [known.modules, known.capture, known.lun, known.kernel?.vmlinuz, known.image?.archive];
  const there = await Promise.all(files.map(async (file) => file == null || (await exists(file))));
  if (there.every(Boolean)) return known;
  ownByKeys.delete(key);
  return remembered(ownByKeys, key, () => ownParts(assignment, progress));
}

/** What this host has, or can make of its own catalogue, with the plan's keys. What it cannot is fetched: no failure here is one. */
async function ownParts({ plan, parts }: Assignment, progress: Progress): Promise<OwnParts> {
  const tried = async <T>(make: () => Promise<T | null>): Promise<T | null> =>
    make().catch((error: unknown) => {
      if (error instanceof LoopanicError) return null;
      throw error;
    });
  const kernel = await tried(async () => {
    const there = await presentKernel(plan.kernel);
    if (there?.key === plan.parts.kernel) return there;
    if (there || !(plan.kernel in (await catalogue()))) return null;
    const made = await ensureKernel(plan.kernel, progress);
    return made.key === plan.parts.kernel ? made : null;
  });
  const image = await tried(async () =>
    basename(await imagePath(parts.image)) === plan.parts.image ? ensureImage(parts.image, progress) : null,
  );
  const archives =
    kernel && image && (await tried(() => ensureModulesArchives(kernel, plan.profile, image.modules)));
  const capture =
    image && archives?.capture
      ? await tried(async () => ensureCaptureArchive(image.capture, archives.capture ?? ''))
      : null;
  const lun = kernel && plan.parts.lun !== null ? await tried(() => ensureLun(plan.scenario, kernel)) : null;
  const withKey = (path: string | null | undefined, key: string | null): string | null =>
    path && basename(path) === key ? path : null;
  return {
    kernel,
    image,
    modules: withKey(archives?.guest, plan.parts.modules),
    capture: withKey(capture, plan.parts.capture),
    lun: withKey(lun, plan.parts.lun),
  };
}

async function fetchPart(coordinator: CoordinatorClient, part: Part, target: string): Promise<void> {
  const stream = await coordinator.open(`parts/${part.sha256}`);
  let bytes = 0;
  const bounded = new Transform({
    transform(chunk: Buffer, _, done) {
      bytes += chunk.length;
      done(bytes > part.bytes ? new Error('more comes than was named') : null, chunk);
    },
  });
  await pipeline(stream, bounded, createWriteStream(target, { mode: 0o600, flags: 'wx' }));
  if ((await sha256OfFile(target)) !== part.sha256)
    throw new InfraError('part-lost', `part ${part.sha256}: something else came from its coordinator`);
}

async function fetchDisk(
  coordinator: CoordinatorClient,
  key: string,
  part: Part,
  target: string,
): Promise<void> {
  const stream = await coordinator.open(`disks/${encodeURIComponent(key)}`);
  const hash = createHash('sha256');
  async function* hashed(): AsyncGenerator<Uint8Array> {
    for await (const chunk of stream) {
      hash.update(chunk);
      yield chunk;
    }
  }
  await writeSparse(hashed(), target, MOST_DISK_BYTES);
  if (hash.digest('hex') !== part.sha256)
    throw new InfraError('part-lost', `disk ${key}: something else came from its coordinator`);
}
