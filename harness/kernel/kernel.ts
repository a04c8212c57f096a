import { join } from 'node:path';
import * as z from 'zod';
import type { GateModule } from '../bug/bug.js';
import type { KernelProfile } from './profile.js';

/** A package that a kernel came from. */
export const kernelPackageSchema = z.object({
  name: z.string(),
  version: z.string(),
  sha256: z.string().optional(),
  signature: z.string().optional().describe('who signed it, if that was checked; else why it was not'),
});
export type KernelPackage = z.infer<typeof kernelPackageSchema>;

/** What kernel.json says of a kernel on this host. */
export const kernelRecordSchema = z.object({
  id: z.string(),
  origin: z.enum(['debian', 'rpm', 'deb', 'directory']),
  release: z.string().describe('uname -r'),
  version: z.string().describe("the package's version"),
  suite: z
    .string()
    .optional()
    .describe("Debian's suite, whose packages bring headers, source and debug info"),
  sourcePackage: z.string().optional(),
  packages: z.array(kernelPackageSchema),
  built: z
    .object({
      key: z.string(),
      from: z.string(),
      base: z.string().default('').describe('names its source and configuration, without the patches'),
      seconds: z.number().default(0).describe('that its build took'),
    })
    .optional()
    .describe('of a kernel that loopanic built: what it was made of, and the kernel it is from'),
  compiler: z.string().nullable().default(null).describe('what built its modules, such as "gcc 4.8.5"'),
  forced: z.array(z.string()).default([]).describe('why it cannot show the bug; it was added all the same'),
  fetchedAt: z.string(),
});
export type KernelRecord = z.infer<typeof kernelRecordSchema>;

/** A kernel on disk, ready to boot. */
export interface Kernel extends KernelRecord {
  /** Folder of this kernel and version. */
  dir: string;
  /** Names this build: changes whenever the kernel's files do. */
  key: string;
  /** The compressed image, as the distribution ships it. */
  vmlinuz: string;
  /** The same kernel unpacked, if it can be booted so (PVH note); skips firmware and decompression, 3–4 s under TCG. */
  vmlinux: string | null;
  /** Kernel configuration file. */
  config: string;
  /** Root of its modules: `<modulesRoot>/lib/modules/<release>`. */
  modulesRoot: string;
  profile: KernelProfile;
}

/** Path of a kernel's own module. */
export function stockModulePath(
  kernel: Pick<Kernel, 'modulesRoot' | 'release'>,
  { path }: Pick<GateModule, 'path'>,
): string {
  return join(kernel.modulesRoot, 'lib/modules', kernel.release, 'kernel', path);
}
