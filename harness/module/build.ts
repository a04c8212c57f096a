import { copyFile, cp, mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { execa } from 'execa';
import { UsageError } from '../base/errors.js';
import { buildOnce, contentKey, exists, scratchDir } from '../base/files.js';
import { cacheDir, imagesDir } from '../base/paths.js';
import type { Progress } from '../base/progress.js';
import { needProgram } from '../host/tools.js';
import { ensureBuildTree, moduleSources } from '../kernel/build-tree.js';
import type { Kernel } from '../kernel/kernel.js';

/**
 * Builds a variant of libiscsi_tcp.ko against a kernel's headers, from its own source and the first of `patches` (files in
 * vm-images/modules) that applies. Cached by kernel version and patch content. Returns the .ko's path.
 */
export async function buildVariant(
  name: string,
  patches: readonly string[],
  kernel: Kernel,
  progress: Progress,
): Promise<string> {
  const texts = await Promise.all(patches.map((patch) => readFile(join(imagesDir, 'modules', patch))));
  const key = contentKey(kernel.id, kernel.version, kernel.release, ...texts);
  const target = cacheDir('modules', `${name}-${key}`, 'libiscsi_tcp.ko');
  if (await exists(target)) return target;
  const tree = await ensureBuildTree(kernel, progress);
  await progress.step(`module ${name} for ${kernel.id}`, async (update) => {
    await using scratch = await scratchDir('module');
    const work = join(scratch.path, 'source');
    await cp(tree.source, work, { recursive: true });
    const patch = await applyFirst(work, patches);
    update(`compiling with ${patch}`);
    const build = join(scratch.path, 'build');
    await mkdir(build);
    for (const file of moduleSources) await copyFile(join(work, file), join(build, file.replace(/.*\//, '')));
    await writeFile(join(build, 'Makefile'), 'obj-m := libiscsi_tcp.o\n');
    await needProgram('gcc-12');
    const made = await execa(
      await needProgram('make'),
      ['-C', tree.headers, `M=${build}`, 'CONFIG_MODULE_SRCVERSION_ALL=y', 'modules'],
      { all: true, reject: false, env: { LC_ALL: 'C' } },
    );
    if (made.failed) {
      const line =
        made.all.split('\n').find((text) => /error|Error/.test(text)) ?? made.all.split('\n').at(-1);
      throw new UsageError(
        'module-build-failed',
        `module ${name} does not compile for ${kernel.id}: ${line}`,
      );
    }
    await mkdir(dirname(dirname(target)), { recursive: true, mode: 0o700 });
    await buildOnce(dirname(target), async (out) => {
      await mkdir(out);
      await copyFile(join(build, 'libiscsi_tcp.ko'), join(out, 'libiscsi_tcp.ko'));
    });
  });
  return target;
}

async function applyFirst(work: string, patches: readonly string[]): Promise<string> {
  const patchProgram = await needProgram('patch');
  const reasons: string[] = [];
  for (const patch of patches) {
    const args = ['-p1', '--fuzz=0', '--batch', '--forward', '-i', join(imagesDir, 'modules', patch)];
    const dry = await execa(patchProgram, [...args, '--dry-run'], { cwd: work, reject: false, all: true });
    if (dry.failed) {
      reasons.push(
        `${patch}: ${dry.all.split('\n').find((line) => /FAILED|failed|can't/.test(line)) ?? 'refused'}`,
      );
      continue;
    }
    await execa(patchProgram, args, { cwd: work });
    return patch;
  }
  throw new UsageError('patch-refused', `no patch fits this kernel's libiscsi_tcp.c: ${reasons.join('; ')}`);
}
