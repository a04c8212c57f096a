import { copyFile, cp, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { execa } from 'execa';
import { UsageError } from '../base/errors.js';
import { exists } from '../base/files.js';
import { needProgram } from '../host/tools.js';
import { moduleSources } from '../kernel/build-tree.js';

/** How a module's source differs from the kernel's own. */
export type Change =
  /** The first of these patches that fits is applied; `origin` is what they are called in messages. */
  | { kind: 'patches'; files: readonly string[] }
  /** The user's own source: a folder with libiscsi_tcp.c, or a kernel tree. */
  | { kind: 'source'; dir: string };

const FILES = moduleSources.map((file) => basename(file));

/** Content that a module built with this change depends on, for its cache key. */
export async function changeContent(change: Change): Promise<Buffer[]> {
  if (change.kind === 'patches') return Promise.all(change.files.map((file) => readFile(file)));
  const dir = await sourceFolder(change.dir);
  const texts = FILES.map((file) => readFile(join(dir, file)).catch(() => Buffer.alloc(0)));
  return Promise.all(texts);
}

/** Makes the changed source in `work` from the kernel's own (a folder with drivers/scsi/). Throws UsageError if the change does not fit. */
export async function prepareSources(change: Change, kernelSource: string, work: string): Promise<void> {
  await cp(kernelSource, work, { recursive: true });
  if (change.kind === 'patches') return applyFirst(work, change.files);
  const dir = await sourceFolder(change.dir);
  for (const file of FILES)
    if (await exists(join(dir, file))) await copyFile(join(dir, file), join(work, 'drivers/scsi', file));
}

async function sourceFolder(dir: string): Promise<string> {
  for (const place of [dir, join(dir, 'drivers/scsi')])
    if (await exists(join(place, 'libiscsi_tcp.c'))) return place;
  throw new UsageError('no-source', `${dir}: there is no libiscsi_tcp.c in it`);
}

/**
 * Checks that a patch changes libiscsi_tcp and nothing else: what it did to another module or a shared header would not be tried.
 * Throws UsageError.
 */
export async function checkPatch(file: string): Promise<void> {
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    throw new UsageError('no-such-patch', `${file}: cannot be read (${(error as Error).message})`, error);
  });
  const changed = [...text.matchAll(/^(?:---|\+\+\+) (\S+)/gm)]
    .map(([, path = '']) => path)
    .filter((path) => path !== '/dev/null')
    .map((path) => path.replace(/^[^/]*\//, ''));
  if (changed.length === 0)
    throw new UsageError('not-a-patch', `${file}: is not a patch: no --- and +++ lines`);
  for (const path of changed)
    if (!(moduleSources as readonly string[]).includes(path))
      throw new UsageError(
        'foreign-patch',
        `${file}: changes ${path}, which is not part of libiscsi_tcp (${moduleSources.join(', ')}; paths as git writes them, a/ and b/ before)`,
      );
}

async function applyFirst(work: string, patches: readonly string[]): Promise<void> {
  const program = await needProgram('patch');
  const reasons: string[] = [];
  for (const patch of patches) {
    const args = ['-p1', '--fuzz=0', '--batch', '--forward', '-i', patch];
    const dry = await execa(program, [...args, '--dry-run'], { cwd: work, reject: false, all: true });
    if (!dry.failed) {
      await execa(program, args, { cwd: work });
      return;
    }
    const line = dry.all.split('\n').find((text) => /FAILED|failed|can't|malformed|[Rr]eversed/.test(text));
    reasons.push(`${basename(patch)}: ${line?.replace(/ -- saving rejects.*/, '') ?? 'refused'}`);
  }
  throw new UsageError(
    'patch-refused',
    `does not apply to this kernel's libiscsi_tcp.c: ${reasons.join('; ')}`,
  );
}
