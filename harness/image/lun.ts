import { open, rm } from 'node:fs/promises';
import { InfraError } from '../base/errors.js';
import { buildOnce, contentKey } from '../base/files.js';
import { cacheDir } from '../base/paths.js';
import { host } from '../host/command.js';
import { needProgram } from '../host/tools.js';
import type { Kernel } from '../kernel/kernel.js';
import { xfsFeatures } from '../kernel/profile.js';
import type { Scenario } from '../scenario/scenario-schema.js';

/**
 * The LUN's backing file: sparse, formatted as the scenario and the kernel ask, cached by geometry and never written again (guests
 * get a snapshot). Formatting here takes 0.03 s; over the guest's loopback session it took 20–40 s under TCG.
 */
export async function ensureLun(scenario: Scenario, kernel: Kernel): Promise<string> {
  const mkfs = await needProgram('mkfs.xfs');
  const { stdout } = await host(mkfs, ['-V']);
  const [, major = '0', minor = '0'] = /version (\d+)\.(\d+)/.exec(stdout) ?? [];
  const options = mkfsOptions(scenario, kernel, [Number(major), Number(minor)]);
  if (scenario.filesystem.type === 'ext4') return ext4Lun(scenario);
  const target = cacheDir('luns', `${contentKey(stdout, String(scenario.lun.sizeGiB), ...options)}.img`);
  await buildOnce(target, (out) => format(out, scenario.lun.sizeGiB, mkfs, ['-q', '-f', ...options]));
  return target;
}

async function ext4Lun({ lun }: Scenario): Promise<string> {
  const mkfs = await needProgram('mkfs.ext4');
  const { stderr } = await host(mkfs, ['-V']);
  const target = cacheDir('luns', `${contentKey('ext4', stderr, String(lun.sizeGiB))}.img`);
  await buildOnce(target, (out) => format(out, lun.sizeGiB, mkfs, ['-q', '-F']));
  return target;
}

async function format(out: string, sizeGiB: number, mkfs: string, options: string[]): Promise<void> {
  const file = await open(out, 'wx', 0o600);
  await file.truncate(sizeGiB * 2 ** 30).finally(() => file.close());
  const made = await host(mkfs, [...options, out], { reject: false, all: true });
  if (!made.failed) return;
  await rm(out, { force: true });
  const words = `${mkfs.replace(/.*\//, '')} ${options.join(' ')}`;
  throw new InfraError('mkfs-failed', `${words} failed: ${made.all.split('\n')[0]}`);
}

/** Options of mkfs.xfs for a scenario's file system. `version` is that of the mkfs.xfs which is to take them, as [major, minor]. */
export function mkfsOptions(
  { filesystem }: Scenario,
  kernel: Kernel,
  version: readonly [number, number],
): string[] {
  const { sectorSize, blockSize, allocationGroups } = filesystem;
  return [
    ...xfsFeatures(kernel.release, version),
    ...['-s', `size=${sectorSize}`],
    ...['-b', `size=${blockSize}`],
    ...['-d', `agcount=${allocationGroups}`],
  ];
}
