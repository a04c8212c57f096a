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
import type { TrialFiles } from '../trial/plan.js';
import type { CoordinatorClient } from './client.js';
import type { Assignment, Part } from './protocol.js';
import { writeSparse } from './sparse.js';

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
 * Brings a trial's parts together: what this host's own catalogue can make is made here and must have the plan's key; everything else comes
 * from the coordinator and must have the hash that it named. Nothing of it is run outside a guest. Throws InfraError.
 */
export async function gatherParts(
  { plan, parts }: Assignment,
  coordinator: CoordinatorClient,
  progress: Progress,
): Promise<GatheredParts> {
  const fetched: string[] = [];
  const own = await knownParts({ plan, parts }, progress);
  const fetch = async (what: string, part: Part): Promise<string> => {
    const target = partFile(part.sha256);
    if (await buildOnce(target, (out) => fetchPart(coordinator, part, out))) fetched.push(what);
    const now = new Date();
    await utimes(target, now, now);
    return target;
  };
  const one = async (what: string, part: Part, mine: string | null | undefined): Promise<string> =>
    mine && (await exists(mine)) && (await knownHash(mine)) === part.sha256 ? mine : fetch(what, part);
  const disk = async (what: string, key: string | null, mine: string | null): Promise<string | null> => {
    if (key === null || mine !== null) return mine;
    const target = partFile(`${what}-${basename(key)}`);
    if (await buildOnce(target, (out) => fetchDisk(coordinator, key, out))) fetched.push(what);
    const now = new Date();
    await utimes(target, now, now);
    return target;
  };
  const { kernel } = own;
  const scratch = await scratchDir('workload');
  try {
    const files: TrialFiles = {
      kernel: await one('the kernel', parts.kernel, kernel && (kernel.vmlinux ?? kernel.vmlinuz)),
      crash: parts.crash && {
        kernel: await one('the crash kernel', parts.crash.kernel, kernel?.vmlinuz),
        initramfs: own.capture ?? (await fetch("the crash kernel's initramfs", parts.crash.initramfs)),
      },
      userland: own.image?.archive ?? (await fetch('the image', parts.userland)),
      rootDisk: await disk('the root disk', parts.rootDisk, own.image?.disk ?? null),
      imageScript: await fetch("the image's script", parts.imageScript),
      modules: own.modules ?? (await fetch("the kernel's modules", parts.modules)),
      lun: await disk('the LUN', plan.parts.lun, own.lun),
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

/** sha256 of a file of this host's cache, where nothing is written again under its name. */
async function knownHash(path: string): Promise<string> {
  const { mtimeMs, size, ino } = await stat(path);
  const key = `${path} ${mtimeMs} ${size} ${ino}`;
  const hash = hashes.get(key) ?? sha256OfFile(path);
  hashes.set(key, hash);
  return hash;
}

interface OwnParts {
  kernel: Kernel | null;
  image: GuestImage | null;
  modules: string | null;
  capture: string | null;
  lun: string | null;
}

const ownByKeys = new Map<string, OwnParts>();

/** The same for trials of the same parts, while these are there. */
async function knownParts(assignment: Assignment, progress: Progress): Promise<OwnParts> {
  const { plan, parts } = assignment;
  const { kernel, image, modules, capture, lun } = plan.parts;
  const key = JSON.stringify([plan.kernel, kernel, parts.image, image, modules, capture, lun]);
  const known = ownByKeys.get(key);
  const files = known && [
    known.modules,
    known.capture,
    known.lun,
    known.kernel?.vmlinuz,
    known.image?.archive,
  ];
  const there = await Promise.all((files ?? []).map(async (file) => file == null || (await exists(file))));
  if (known && there.every(Boolean)) return known;
  const own = await ownParts(assignment, progress);
  ownByKeys.set(key, own);
  return own;
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
  const { stream } = await coordinator.open(`parts/${part.sha256}`);
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

async function fetchDisk(coordinator: CoordinatorClient, key: string, target: string): Promise<void> {
  const { stream, sha256 } = await coordinator.open(`disks/${encodeURIComponent(key)}`);
  const hash = createHash('sha256');
  async function* hashed(): AsyncGenerator<Uint8Array> {
    for await (const chunk of stream) {
      hash.update(chunk);
      yield chunk;
    }
  }
  await writeSparse(hashed(), target, MOST_DISK_BYTES);
  if (hash.digest('hex') !== sha256)
    throw new InfraError('part-lost', `disk ${key}: something else came from its coordinator`);
}
