import { EXIT, firstLine, InfraError } from '../../base/errors.js';
import { exists, sweepScratch } from '../../base/files.js';
import type { Progress } from '../../base/progress.js';
import { host } from '../../host/command.js';
import { findProgram, libraries, testTools, tools } from '../../host/tools.js';
import { ensureImage } from '../../image/image.js';
import { ensureModulesArchives } from '../../image/kernel-modules.js';
import { ensureBuildTree } from '../../kernel/build-tree.js';
import { ensureKernel } from '../../kernel/fetch.js';
import { loadScenario } from '../../scenario/load-scenario.js';
import { guestModules } from '../../trial/plan.js';
import { chooseAccel } from '../../vm/accel.js';
import { printResult, progressFor } from '../context.js';

/** `loopanic setup`: host packages, default kernel and default image. Safe to repeat. */
export async function setup(args: {
  kernel: string;
  image: string;
  tests: boolean;
  json: boolean;
}): Promise<number> {
  const progress = progressFor();
  const work = async () => {
    await sweepScratch();
    const installed = await installPackages(progress, args.tests);
    const image = await ensureImage(args.image, progress);
    const kernel = await ensureKernel(args.kernel, progress);
    const { scenario } = await loadScenario('xfs-loopback');
    await ensureModulesArchives(kernel, guestModules(kernel, scenario), image.modules);
    await ensureBuildTree(kernel, progress);
    const accel = await chooseAccel('auto', kernel.vmlinuz);
    return {
      installed,
      kernel: { id: kernel.id, release: kernel.release, version: kernel.version },
      image: image.name,
      accel,
    };
  };
  const done = await work();
  printResult(args.json, done, () => [
    `ready: ${done.kernel.id} ${done.kernel.release} (${done.kernel.version}), image ${done.image}, ${done.accel.accel} (${done.accel.reason})`,
  ]);
  return EXIT.ok;
}

async function installPackages(progress: Progress, tests: boolean): Promise<string[]> {
  const missing: { debian: string; fedora: string }[] = [];
  // Optional tools too: setup is what a user runs to have everything.
  for (const tool of tools) if (!(await findProgram(tool.program))) missing.push(tool);
  const packages = new Set(missing.map((tool) => tool.debian));
  if (await findProgram('apt-get'))
    for (const library of libraries) if (!(await exists(library.file))) packages.add(library.debian);
  if (tests)
    for (const { program, debian } of testTools) if (!(await findProgram(program))) packages.add(debian);
  if (packages.size === 0) return [];
  const names = [...packages];
  const apt = await findProgram('apt-get');
  if (!apt) {
    const fedora = [...new Set(missing.map((tool) => tool.fedora))].join(' ');
    throw new InfraError(
      'no-apt',
      `this host has no apt: run 'dnf install ${fedora}' and then 'loopanic setup' again`,
    );
  }
  const root = process.getuid?.() === 0;
  const sudo = root ? undefined : await findProgram('sudo');
  if (!root && !sudo)
    throw new InfraError(
      'not-root',
      `packages are missing and there is no sudo: as root, run 'apt-get install ${names.join(' ')}'`,
    );
  await progress.step(`installing ${names.join(' ')}`, async (update) => {
    const call = async (...args: string[]): Promise<void> => {
      update(`apt-get ${args[0]}`);
      // Through env: sudo passes none of its caller's environment on.
      const words = ['env', 'DEBIAN_FRONTEND=noninteractive', 'LC_ALL=C', apt, '-q', '-y', ...args];
      const [program, ...rest] = sudo ? [sudo, ...words] : words;
      await host(program ?? apt, rest, {
        stdin: 'inherit',
      }).catch((error: unknown) => {
        const words = String((error as { stderr?: string }).stderr ?? '')
          .split('\n')
          .find((line) => line.startsWith('E:'));
        throw new InfraError('apt-failed', `apt-get ${args[0]} failed: ${words ?? firstLine(error)}`, error);
      });
    };
    await call('update');
    await call('install', '--no-install-recommends', ...names);
  });
  return names;
}
