import { randomBytes, randomInt } from 'node:crypto';
import { guestModules, optionalModules } from '../image/kernel-modules.js';
import { configOption, type Kernel } from '../kernel/kernel.js';
import type { Module } from '../module/module.js';
import type { Expected } from '../outcome/decide.js';
import type { LoadedScenario, Scenario } from '../scenario/scenario-schema.js';
import type { Accel } from '../vm/qemu-args.js';

/** Everything that one trial needs, as plain data: it can be stored, sent elsewhere, and run again. */
export interface TrialPlan {
  kernel: string;
  module: string;
  trial: number;
  /** Seed of the workload's random choices. */
  seed: number;
  /** Marks what this trial's guest says. */
  token: string;
  scenario: Scenario;
  accel: Accel;
  /** The kernel was built with hardened usercopy. */
  hardenedUsercopyBuilt: boolean;
  /** How a crash is captured. */
  dump: DumpMethod;
  /** Files on this host. */
  files: {
    kernel: string;
    /** The crash kernel and its initramfs; used with kdump. */
    crashKernel: string;
    capture: string;
    userland: string;
    modules: string;
    lun: string;
    workload: string;
    /** The module under test, and where the guest finds it. */
    module: { from: string; to: string };
  };
  expected: Expected;
}

/** `kdump`: the guest's own crash kernel, then QEMU if that fails; `qmp`: QEMU alone; `none`: the serial log is all. */
export type DumpMethod = 'kdump' | 'qmp' | 'none';

/** The built parts of a cell. */
export interface CellParts {
  kernel: Kernel;
  module: Module;
  loaded: LoadedScenario;
  accel: Accel;
  userland: string;
  modules: string;
  capture: string;
  lun: string;
}

/** A new seed: 31 bits, as the guest's perl takes it. */
export function newSeed(): number {
  return randomInt(1, 2 ** 31 - 1);
}

/** The plan for one trial of a cell. */
export async function planTrial(
  parts: CellParts,
  trial: number,
  seed: number,
  dump: DumpMethod,
): Promise<TrialPlan> {
  const { kernel, module, loaded, accel } = parts;
  const { scenario } = loaded;
  return {
    kernel: kernel.id,
    module: module.id,
    trial,
    seed,
    token: randomBytes(4).toString('hex'),
    scenario,
    accel,
    dump,
    hardenedUsercopyBuilt: (await configOption(kernel, 'HARDENED_USERCOPY')) === 'y',
    files: {
      kernel: kernel.vmlinux ?? kernel.vmlinuz,
      crashKernel: kernel.vmlinuz,
      capture: parts.capture,
      userland: parts.userland,
      modules: parts.modules,
      lun: parts.lun,
      workload: loaded.workloadDir,
      module: { from: module.file, to: `lib/modules/${kernel.release}/kernel/drivers/scsi/libiscsi_tcp.ko` },
    },
    expected: {
      hardenedUsercopy: scenario.kernel.hardenedUsercopy,
      release: kernel.release,
      module: { srcversion: module.info.srcversion, buildId: module.info.buildId },
      sectorSize: scenario.filesystem.sectorSize,
      blockSize: scenario.filesystem.blockSize,
      nomerges: scenario.block.nomerges,
      headerDigest: scenario.iscsi.headerDigest,
      dataDigest: scenario.iscsi.dataDigest,
      slubMinOrder: scenario.kernel.slubMinOrder ?? null,
      onlineCpus: scenario.vm.cpus,
      allocationGroups: scenario.filesystem.allocationGroups,
      immediateData: scenario.iscsi.immediateData,
      cycles: scenario.workload.cycles,
      minMergedPerCycle:
        scenario.workload.minMergedPerCycle ?? Math.floor(scenario.filesystem.allocationGroups / 2),
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
    'oops=panic',
    'panic=0',
    `hardened_usercopy=${kernel.hardenedUsercopy}`,
    ...(kernel.slubMinOrder === undefined ? [] : [`slub_min_order=${kernel.slubMinOrder}`]),
    ...(plan.dump === 'kdump' ? [`crashkernel=${plan.scenario.vm.crashkernelMiB}M`] : []),
    ...kernel.extraArgs,
  ];
}

/** The plan's part that the guest's scripts read: shell assignments, one a line. */
export function guestPlan(plan: TrialPlan, hold: boolean): string {
  const { scenario } = plan;
  const { headerDigest, dataDigest, immediateData } = scenario.iscsi;
  const connection = 'node.conn[0].iscsi';
  const values: Record<string, string | number> = {
    TOKEN: plan.token,
    SEED: plan.seed,
    HOLD: hold ? 1 : 0,
    MODULES: guestModules.join(' '),
    OPTIONAL_MODULES: optionalModules.join(' '),
    KDUMP: plan.dump === 'kdump' ? 1 : 0,
    PIN_CPU: scenario.vm.pinCpu ?? '',
    TARGET_PARAMS: `HeaderDigest=${headerDigest} DataDigest=${dataDigest} ImmediateData=${immediateData}`,
    INITIATOR_PARAMS: [
      `${connection}.HeaderDigest=${headerDigest}`,
      `${connection}.DataDigest=${dataDigest}`,
      `node.session.iscsi.ImmediateData=${immediateData}`,
    ].join(' '),
    NOMERGES: scenario.block.nomerges,
    ALLOCATION_GROUPS: scenario.filesystem.allocationGroups,
    CYCLES: scenario.workload.cycles,
    SHUFFLE_OBJECTS: scenario.workload.shuffleObjects,
    SHUFFLE_SIZE: scenario.workload.shuffleSize,
  };
  return Object.entries(values)
    .map(([name, value]) => `${name}='${String(value).replaceAll("'", "'\\''")}'\n`)
    .join('');
}
