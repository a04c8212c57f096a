import { randomBytes, randomInt } from 'node:crypto';
import { basename } from 'node:path';
import { shellQuote } from '../base/shell-word.js';
import { bugOf, targetOf, transportOf } from '../bug/family.js';
import type { GuestImage } from '../image/image.js';
import type { Kernel } from '../kernel/kernel.js';
import type { KernelProfile } from '../kernel/profile.js';
import type { ModuleRecord } from '../module/identity.js';
import { type Module, moduleRecord } from '../module/module.js';
import type { Expected } from '../outcome/decide.js';
import type { LoadedScenario, Scenario } from '../scenario/scenario-schema.js';
import type { Accel } from '../vm/qemu-args.js';

/** Everything that one trial needs, as plain data: it can be stored, sent elsewhere, and run again. */
export interface TrialPlan {
  kernel: string;
  module: string;
  moduleInfo: ModuleRecord;
  trial: number;
  /** Names everything that the cell is made of, and the program that runs it. */
  cellKey: string;
  /** Seed of the workload's random choices. */
  seed: number;
  /** Marks what this trial's guest says. */
  token: string;
  scenario: Scenario;
  accel: Accel;
  /** Who runs it; its QEMU as that tells its version. */
  host?: { name: string; qemu: string };
  /** What the kernel's profile says of its guests. */
  profile: Pick<KernelProfile, 'hardenedUsercopyBuilt' | 'freelistRandom'> & GuestModules;
  /** Options of mkfs.xfs, where the guest makes the file system; else it is on the LUN already. */
  mkfs: string[];
  /** Memory kept for the crash kernel. */
  crashkernelMiB: number;
  /** How a crash is captured. */
  dump: DumpMethod;
  /** What the guest is made of, each part by a key of its content: whoever has these parts, or can make them, can run the trial. */
  parts: {
    /** Of the kernel's build. */
    kernel: string;
    image: string;
    modules: string;
    /** The crash kernel's initramfs; null without kdump. */
    capture: string | null;
    /** Null if the target keeps its data itself. */
    lun: string | null;
    /** What runs in the guest beside the image: loopanic's scripts, the image's, and the workload. */
    scripts: string;
    /** sha256 of the module under test. */
    module: string;
  };
  /** The guest lives on a root disk, not in its initramfs. */
  rootDisk: boolean;
  /** Where the guest finds the module under test, from its root. */
  modulePath: string;
  expected: Expected;
}

/** Where a trial's parts are on this host. */
export interface TrialFiles {
  kernel: string;
  /** The crash kernel and its initramfs; with kdump only. */
  crash: { kernel: string; initramfs: string } | null;
  /** The image's: first archive of the initramfs, root disk if it has one, and shell functions. */
  userland: string;
  rootDisk: string | null;
  imageScript: string;
  modules: string;
  lun: string | null;
  workload: string;
  module: string;
}

/** The files of a cell's trials. */
export function filesOf({ kernel, module, loaded, image, modules, capture, lun }: CellParts): TrialFiles {
  return {
    kernel: kernel.vmlinux ?? kernel.vmlinuz,
    crash: capture === null ? null : { kernel: kernel.vmlinuz, initramfs: capture },
    userland: image.archive,
    rootDisk: image.disk,
    imageScript: image.guestScript,
    modules,
    lun,
    workload: loaded.workloadDir,
    module: module.file,
  };
}

/** Modules that a guest loads, in order; of the optional ones those that its kernel has, before the others. */
export interface GuestModules {
  modules: readonly string[];
  optionalModules: readonly string[];
}

/** What the guests of a scenario load: what every guest does, and what its bug's transport and target do. */
export function guestModules({ profile }: Kernel, scenario: Scenario): GuestModules {
  const [transport, target] = [transportOf(bugOf(scenario.bug).transport), targetOf(scenario.target)];
  return {
    modules: [
      ...new Set([...profile.modules, scenario.filesystem.type, ...target.modules, ...transport.modules]),
    ],
    optionalModules: [...profile.optionalModules, ...(target.optionalModules ?? [])],
  };
}

/** `kdump`: the guest's own crash kernel, then QEMU if that fails; `qmp`: QEMU alone; `none`: the serial log is all. */
export type DumpMethod = 'kdump' | 'qmp' | 'none';

/** The built parts of a cell. */
export interface CellParts {
  kernel: Kernel;
  module: Module;
  loaded: LoadedScenario;
  accel: Accel;
  image: GuestImage;
  modules: string;
  /** The crash kernel's initramfs; null if this kernel cannot be one. */
  capture: string | null;
  /** Null if the target keeps its data itself. */
  lun: string | null;
  /** Options for the guest's own mkfs.xfs; empty with a LUN. */
  mkfs: string[];
  /** Content of what runs in the guest beside the image. */
  scripts: string;
  /** Names all of these, and the program that runs them. */
  key: string;
}

/** What a guest is: the target, the initiator, or both over loopback. */
export type GuestRole = 'both' | 'initiator' | 'target';

/** Where the target listens. */
export const TARGET_ADDRESS = { loopback: '127.0.0.1', peer: '10.0.3.1' } as const;
const INITIATOR_ADDRESS = '10.0.3.2';

/** A new seed: 31 bits, as the guest's perl takes it. */
export function newSeed(): number {
  return randomInt(1, 2 ** 31 - 1);
}

/** The plan for one trial of a cell. */
export function planTrial(parts: CellParts, trial: number, seed: number, dump: DumpMethod): TrialPlan {
  const { kernel, module, loaded, accel } = parts;
  const { scenario } = loaded;
  const { profile } = kernel;
  const bug = bugOf(scenario.bug);
  const crash = dump === 'kdump' && parts.capture !== null;
  return {
    kernel: kernel.id,
    module: module.id,
    moduleInfo: moduleRecord(module),
    trial,
    cellKey: parts.key,
    seed,
    token: randomBytes(4).toString('hex'),
    scenario,
    accel,
    dump: dump === 'kdump' && !crash ? 'qmp' : dump,
    profile: {
      hardenedUsercopyBuilt: profile.hardenedUsercopyBuilt,
      freelistRandom: profile.freelistRandom,
      ...guestModules(kernel, scenario),
    },
    mkfs: parts.mkfs,
    crashkernelMiB: scenario.vm.crashkernelMiB ?? profile.crashkernelMiB,
    parts: {
      kernel: kernel.key,
      image: parts.image.key,
      modules: basename(parts.modules),
      capture: crash ? basename(parts.capture ?? '') : null,
      lun: parts.lun && basename(parts.lun),
      scripts: parts.scripts,
      module: module.identity.sha256,
    },
    rootDisk: parts.image.disk !== null,
    modulePath: `lib/modules/${kernel.release}/kernel/${bug.module.path}`,
    expected: {
      hardenedUsercopy: scenario.kernel.hardenedUsercopy,
      release: kernel.release,
      module: { srcversion: module.info.srcversion, buildId: module.info.buildId },
      filesystem: scenario.filesystem.type,
      sectorSize: scenario.filesystem.sectorSize,
      blockSize: scenario.filesystem.blockSize,
      nomerges: scenario.block.nomerges,
      transport: { ...scenario.transport, targetAddress: TARGET_ADDRESS[scenario.where] },
      slubMinOrder: scenario.kernel.slubMinOrder ?? null,
      slubMaxOrder: scenario.kernel.slubMaxOrder ?? null,
      redZone: scenario.kernel.slubDebug?.split(',')[0]?.includes('Z') ?? false,
      loopback: scenario.where === 'loopback',
      onlineCpus: scenario.vm.cpus,
      allocationGroups: scenario.filesystem.allocationGroups,
      writebackCentiseconds: scenario.filesystem.writebackCentiseconds ?? null,
      cycles: scenario.workload.cycles,
      proof: bug.counters.map(({ key, leastInAll = 0, bytes = 0, words, tooFew }) => ({
        key,
        least: scenario.workload.minPerCycle[key] ?? 0,
        leastInAll,
        bytes,
        words,
        tooFew,
      })),
    },
  };
}

/** The guest kernel's command line. `oops=panic`: production's panic_on_oops; `panic=0`: a panicked guest stays to be looked at. */
export function kernelArgs(plan: TrialPlan): string[] {
  const { kernel } = plan.scenario;
  return [
    'console=ttyS0',
    'loglevel=6',
    'printk.devkmsg=on',
    'printk.time=1',
    // All of a trial's messages fit: they are read from there at its end.
    'log_buf_len=4M',
    'oops=panic',
    'panic=0',
    // A busy host's TCG timer can fail the check, which panics; RHEL's kernels panic on lockups that a vPMU only imagines.
    'no_timer_check',
    'nmi_watchdog=nopanic',
    `hardened_usercopy=${kernel.hardenedUsercopy}`,
    ...(kernel.slubMinOrder === undefined ? [] : [`slub_min_order=${kernel.slubMinOrder}`]),
    ...(kernel.slubMaxOrder === undefined ? [] : [`slub_max_order=${kernel.slubMaxOrder}`]),
    ...(kernel.slubDebug === undefined ? [] : [`slub_debug=${kernel.slubDebug}`]),
    ...(plan.dump === 'kdump' ? [`crashkernel=${plan.crashkernelMiB}M`] : []),
    // What a distribution's own init reads: it keeps the names of network devices, and says what it does on the console, in plain text.
    ...(!plan.rootDisk ? [] : ['net.ifnames=0', 'systemd.show_status=1', 'systemd.log_color=0', 'selinux=0']),
    ...(transportOf(bugOf(plan.scenario.bug).transport).kernelArgs ?? []),
    ...kernel.extraArgs,
  ];
}

/** The plan's part that the guest's scripts read: shell assignments, one a line. */
export function guestPlan(plan: TrialPlan, hold: boolean, role: GuestRole): string {
  const { scenario } = plan;
  const bug = bugOf(scenario.bug);
  const transport = transportOf(bug.transport);
  const values: Record<string, string | number> = {
    TOKEN: plan.token,
    ROLE: role,
    MODULE: bug.module.name,
    TRANSPORT: transport.id,
    TARGET: scenario.target,
    TARGET_ADDRESS: TARGET_ADDRESS[scenario.where],
    PORTS: transport.ports.join(' '),
    DISK: transport.disk,
    TRACE_SECTORS: bug.requestSectors,
    GATE_LEAK: bug.copy,
    GATE_FUNCTIONS: scenario.readGate ? bug.gateFunctions.join(' ') : '',
    MKFS: plan.mkfs.join(' '),
    LUN_GIB: scenario.lun.sizeGiB,
    FILESYSTEM: scenario.filesystem.type,
    ADDRESS: role === 'target' ? TARGET_ADDRESS.peer : INITIATOR_ADDRESS,
    SEED: plan.seed,
    HOLD: hold ? 1 : 0,
    MODULES: plan.profile.modules.join(' '),
    OPTIONAL_MODULES: plan.profile.optionalModules.join(' '),
    KDUMP: plan.dump === 'kdump' && role !== 'target' ? 1 : 0,
    PIN_CPU: scenario.vm.pinCpu ?? '',
    NOMERGES: scenario.block.nomerges,
    WRITEBACK: scenario.filesystem.writebackCentiseconds ?? '',
    ALLOCATION_GROUPS: scenario.filesystem.allocationGroups,
    SECTOR_SIZE: scenario.filesystem.sectorSize,
    CYCLES: scenario.workload.cycles,
    WORKLOAD_ARGS: scenario.workload.args.join(' '),
    // Without random free lists there is no luck to deal anew.
    SHUFFLE_OBJECTS: plan.profile.freelistRandom ? scenario.workload.shuffleObjects : 0,
    SHUFFLE_SIZE: scenario.workload.shuffleSize,
    // What the transport is asked for, by the names of its settings.
    ...Object.fromEntries(Object.entries(scenario.transport).map(([key, value]) => [`SET_${key}`, value])),
  };
  return Object.entries(values)
    .map(([name, value]) => `${name}=${shellQuote(String(value))}\n`)
    .join('');
}
