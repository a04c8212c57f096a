import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';

/** What kernel.json says of a fetched kernel. */
export const kernelRecordSchema = z.object({
  id: z.string(),
  origin: z.enum(['debian']),
  release: z.string().describe('uname -r'),
  version: z.string().describe("the package's version"),
  suite: z.string(),
  sourcePackage: z.string(),
  packages: z.array(z.object({ name: z.string(), version: z.string() })),
  fetchedAt: z.string(),
});
export type KernelRecord = z.infer<typeof kernelRecordSchema>;

/** A kernel on disk, ready to boot. */
export interface Kernel extends KernelRecord {
  /** Folder of this kernel and version. */
  dir: string;
  /** The compressed image, as the distribution ships it. */
  vmlinuz: string;
  /** The same kernel unpacked, if it can be booted so (PVH note); skips firmware and decompression, 3–4 s under TCG. */
  vmlinux: string | null;
  /** Kernel configuration file. */
  config: string;
  /** Root of its modules: `<modulesRoot>/lib/modules/<release>`. */
  modulesRoot: string;
}

/** Value of a CONFIG_ option (without the prefix) in a kernel's configuration, or undefined if it is not set. */
export async function configOption(kernel: Kernel, name: string): Promise<string | undefined> {
  const text = await readFile(kernel.config, 'utf8');
  return new RegExp(`^CONFIG_${name}=(.*)$`, 'm').exec(text)?.[1];
}

/** Options for mkfs.xfs that this kernel can mount, beside geometry. `mkfsVersion` is the host's, as [major, minor]. */
export function xfsFeatures(release: string, mkfsVersion: readonly [number, number]): string[] {
  const [major = 0, minor = 0] = release.split('.').map((part) => Number.parseInt(part, 10));
  const kernelHas = (a: number, b: number): boolean => major > a || (major === a && minor >= b);
  const mkfsHas = (a: number, b: number): boolean =>
    mkfsVersion[0] > a || (mkfsVersion[0] === a && mkfsVersion[1] >= b);
  const onOff = (has: boolean): string => (has ? '1' : '0');
  const meta = [
    'crc=1',
    `finobt=${onOff(kernelHas(3, 16))}`,
    'rmapbt=0',
    `reflink=${onOff(kernelHas(4, 16))}`,
    ...(mkfsHas(5, 10)
      ? [`bigtime=${onOff(kernelHas(5, 10))}`, `inobtcount=${onOff(kernelHas(5, 10))}`]
      : []),
  ];
  const inode = [`sparse=${onOff(kernelHas(4, 10))}`, ...(mkfsHas(5, 19) ? ['nrext64=0'] : [])];
  return ['-m', meta.join(','), '-i', inode.join(',')];
}

/** Path of a kernel's own libiscsi_tcp.ko. */
export function stockModulePath(kernel: Kernel): string {
  return join(kernel.modulesRoot, 'lib/modules', kernel.release, 'kernel/drivers/scsi/libiscsi_tcp.ko');
}
