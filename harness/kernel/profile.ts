import { readFile } from 'node:fs/promises';
import type { Bug, KernelOption } from '../bug/bug.js';
import { allBugs, transportOf } from '../bug/family.js';
import { versionAtLeast } from '../bug/release.js';

/** What a kernel can do and how it wants to be treated, from its own release and configuration. The one place that knows kernels apart. */
export interface KernelProfile {
  hardenedUsercopyBuilt: boolean;
  /** New slabs hand out their objects in an order drawn once per boot, so the workload has to deal free lists anew. */
  freelistRandom: boolean;
  /** It can load a crash kernel, and be one. */
  kdump: boolean;
  /** Memory kept for its crash kernel if the scenario does not say. */
  crashkernelMiB: number;
  /** Modules that every guest loads, in this order; a transport and a target have more. Built-in ones need no file. */
  modules: readonly string[];
  /** Modules that its guest loads first if they exist: providers that others ask for by alias, which no dependency names. */
  optionalModules: readonly string[];
  /** Modules that its crash kernel loads (vm-images/capture/init). */
  captureModules: readonly string[];
  /** Why it can show no bug; empty if it can show one. */
  unfit: readonly string[];
  /** Why it cannot show a bug of the family, by the bug's id; those that it can show are not there. */
  unfitFor: Readonly<Record<string, readonly string[]>>;
  /** What it lacks beside: nothing that a verdict rests on. */
  notes: readonly string[];
}

// XFS and libcrc32c ask for crc32c, sd_mod for crct10dif; qemu_fw_cfg carries vmcoreinfo for dumps that QEMU takes.
const optionalModules = [
  ...['crc32c_generic', 'crc32c', 'crct10dif_generic', 'crct10dif_common', 'qemu_fw_cfg'],
];
const guestModules = ['virtio_pci', 'virtio_blk', 'virtio_net'];
const captureModules = ['virtio_pci', 'virtio_console'];

/** Options without which a guest cannot boot, be watched, or try any bug. */
const wanted: readonly KernelOption[] = [
  { name: 'HARDENED_USERCOPY', modular: false, purpose: 'the check that panics' },
  { name: 'XFS_FS', modular: true, purpose: 'XFS' },
  { name: 'SLUB', modular: false, purpose: 'SLUB, whose kmalloc objects the signature names' },
  { name: 'VIRTIO_PCI', modular: true, purpose: "the guest's devices" },
  { name: 'VIRTIO_BLK', modular: true, purpose: "the LUN's disk" },
  { name: 'BLK_DEV_INITRD', modular: false, purpose: 'an initramfs' },
  { name: 'DEVTMPFS', modular: false, purpose: '/dev' },
  {
    name: 'SERIAL_8250_CONSOLE',
    modular: false,
    purpose: 'the serial console, which outcomes are read from',
  },
  {
    name: 'EVENT_TRACING',
    modular: false,
    purpose: "block_rq_complete events, a survivor's proof of work",
  },
];

/** The profile of a kernel, from `uname -r` and its configuration file. */
export async function kernelProfile(release: string, configFile: string): Promise<KernelProfile> {
  const config = await readConfig(configFile);
  const has = (option: string, modular = false): boolean =>
    config.get(option) === 'y' || (modular && config.get(option) === 'm');
  const missing = (options: readonly KernelOption[]): string[] =>
    options
      .filter(({ name, modular }) => !has(name, modular))
      .map(({ name, purpose }) =>
        `CONFIG_${name} is not set: no ${purpose}`.replace('no the ', 'without the '),
      );
  const ownOf = ({ module, transport }: Bug): string[] => {
    const why = missing(transportOf(transport).options);
    if (config.get(module.option) === 'y')
      why.push(`CONFIG_${module.option}=y: ${module.name} is built in, so nothing can stand in for it`);
    return why;
  };
  const unfitFor = Object.fromEntries(
    allBugs()
      .map((bug) => [bug.id, ownOf(bug)] as const)
      .filter(([, why]) => why.length > 0),
  );
  const unfit = missing(wanted);
  // One that can show none of them is told why by the usual one.
  if (allBugs().every(({ id }) => unfitFor[id] !== undefined))
    unfit.push(...(Object.values(unfitFor)[0] ?? []));
  const kdump = has('CRASH_DUMP') && has('KEXEC') && has('PROC_VMCORE') && has('VIRTIO_CONSOLE', true);
  return {
    hardenedUsercopyBuilt: has('HARDENED_USERCOPY'),
    freelistRandom: has('SLAB_FREELIST_RANDOM'),
    kdump,
    crashkernelMiB: versionAtLeast(release, 4, 0) ? 192 : 160,
    modules: guestModules,
    optionalModules,
    captureModules,
    unfit,
    unfitFor,
    notes: kdump ? [] : ['no CRASH_DUMP, KEXEC, PROC_VMCORE or VIRTIO_CONSOLE: dumps are taken by QEMU only'],
  };
}

/** Options for mkfs.xfs that a kernel release can mount, beside geometry. `mkfsVersion` is the host's, as [major, minor]. */
export function xfsFeatures(release: string, mkfsVersion: readonly [number, number]): string[] {
  const kernelHas = (a: number, b: number): string => (versionAtLeast(release, a, b) ? '1' : '0');
  const mkfsHas = (a: number, b: number): boolean =>
    mkfsVersion[0] > a || (mkfsVersion[0] === a && mkfsVersion[1] >= b);
  const meta = [
    'crc=1',
    `finobt=${kernelHas(3, 16)}`,
    'rmapbt=0',
    `reflink=${kernelHas(4, 16)}`,
    ...(mkfsHas(5, 10) ? [`bigtime=${kernelHas(5, 10)}`, `inobtcount=${kernelHas(5, 10)}`] : []),
  ];
  const inode = [`sparse=${kernelHas(4, 10)}`, ...(mkfsHas(5, 19) ? ['nrext64=0'] : [])];
  return ['-m', meta.join(','), '-i', inode.join(',')];
}

/** A kernel's configuration: value of each option (without the CONFIG_ prefix) that is set. */
async function readConfig(file: string): Promise<ReadonlyMap<string, string>> {
  const options = new Map<string, string>();
  for (const [, name = '', value = ''] of (await readFile(file, 'utf8')).matchAll(/^CONFIG_(\w+)=(.*)$/gm))
    options.set(name, value);
  return options;
}
