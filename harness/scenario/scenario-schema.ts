import * as z from 'zod';
import { DEFAULT_BUG } from '../bug/default-bug.js';
import { whyReserved } from './kernel-words.js';

const parameters = z.record(z.string(), z.string()).default({});

/** A scenario file: what happens in the guest. Sizes carry their unit in the key; seconds are wall clock. */
export const scenarioSchema = z
  .strictObject({
    summary: z.string().min(1).describe('one line: what this scenario tries'),
    image: z.string().optional().describe('guest image that its workload needs; default: minimal'),
    bug: z.string().default(DEFAULT_BUG).describe('which bug of the family it tries (loopanic bug ls)'),
    target: z
      .string()
      .optional()
      .describe(
        "what serves the LUN: one of the bug's targets (loopanic bug show); default: the first of them",
      ),
    where: z
      .enum(['loopback', 'peer'])
      .default('loopback')
      .describe('where the target is: in the guest itself, or in a second guest on a private network'),
    receiver: z
      .string()
      .min(1)
      .max(15)
      .optional()
      .describe("Comm of the task whose read must crash; default: the target's own"),
    vm: z
      .strictObject({
        cpus: z.int().min(1).max(64).default(1).describe('online CPUs'),
        possibleCpus: z
          .int()
          .min(1)
          .max(255)
          .optional()
          .describe('CPUs that could be plugged in; SLUB sizes slabs by them'),
        pinCpu: z.int().min(0).optional().describe('CPU that the trial is bound to'),
        memoryMiB: z.int().min(512).max(1048576).default(1024),
        crashkernelMiB: z
          .int()
          .min(64)
          .max(1024)
          .optional()
          .describe("memory kept for the crash kernel, with kdump; default: what the kernel's release needs"),
      })
      .prefault({}),
    kernel: z
      .strictObject({
        hardenedUsercopy: z.enum(['on', 'off']).default('on'),
        slubMinOrder: z.int().min(0).max(5).optional().describe('slub_min_order on the kernel command line'),
        slubMaxOrder: z.int().min(0).max(5).optional().describe('slub_max_order; read back for kmalloc-512'),
        slubDebug: z
          .string()
          .regex(/^[A-Z]+(,[\w-]+)?$/, 'must be flags, or flags,cache')
          .optional()
          .describe('slub_debug; red zones (Z) of kmalloc-512 are read back'),
        extraArgs: z
          .array(
            z
              .string()
              .regex(/^[^\s"']+$/, 'must be one word of the kernel command line, without quotes')
              .superRefine((word, context) => {
                const why = whyReserved(word);
                if (why !== null) context.addIssue({ code: 'custom', message: `${word}: ${why}` });
              }),
          )
          .default([])
          .describe('words for the kernel command line, but none that the scenario or the harness sets'),
      })
      .prefault({}),
    lun: z.strictObject({ sizeGiB: z.int().min(1).max(1024).default(16) }).prefault({}),
    filesystem: z
      .strictObject({
        type: z.enum(['xfs', 'ext4']).default('xfs').describe('of ext4 the geometry below says nothing'),
        sectorSize: z
          .union([z.literal(512), z.literal(4096)])
          .default(512)
          .describe('bytes'),
        blockSize: z
          .union([z.literal(1024), z.literal(2048), z.literal(4096)])
          .default(4096)
          .describe('bytes'),
        allocationGroups: z.int().min(1).max(512).default(128),
        writebackCentiseconds: z
          .int()
          .min(100)
          .max(720000)
          .optional()
          .describe(
            'how often XFS writes dirty metadata back (fs.xfs.xfssyncd_centisecs); kernels have 3000',
          ),
      })
      .prefault({}),
    transport: parameters.describe("settings of the bug's transport (loopanic bug show), read back"),
    iscsi: parameters.describe('the same, for the transport iscsi'),
    block: z.strictObject({ nomerges: z.literal([0, 1, 2]).default(0) }).prefault({}),
    workload: z.strictObject({
      name: z.string().regex(/^[a-z][a-z0-9-]*$/, 'must be the name of a folder in scenarios/workloads'),
      args: z
        .array(z.string().regex(/^[\w.=:/-]+$/, 'must be one word of letters, digits and . _ = : / -'))
        .default([])
        .describe("arguments of the workload's run"),
      cycles: z.int().min(1).max(10000).describe('cycles after which a guest that still runs has survived'),
      minPerCycle: z
        .record(z.string(), z.int().min(0))
        .default({})
        .describe(
          'what a cycle must have done to prove anything, by what its bug counts (loopanic bug show)',
        ),
      minMergedPerCycle: z
        .int()
        .min(0)
        .optional()
        .describe('minPerCycle.merged: merged AGF+AGI writes; default: half of the allocation groups'),
      minHeaderReadsPerCycle: z
        .int()
        .min(0)
        .optional()
        .describe('minPerCycle.reads: reads of AGFs and AGIs from the LUN; default: 0'),
      shuffleObjects: z
        .int()
        .min(0)
        .max(100000)
        .default(0)
        .describe('objects to deal a free list anew with; 0: never'),
      shuffleSize: z.int().min(1).max(32000).default(440).describe('payload bytes of each such object'),
    }),
    readGate: z
      .boolean()
      .default(true)
      .describe('a probe in the guest reads the gate; false: panics and statistics are all that tells'),
    limits: z
      .strictObject({
        silenceSeconds: z
          .number()
          .min(1)
          .default(60)
          .describe('no byte from the guest for so long: it hangs'),
        stallSeconds: z
          .number()
          .min(1)
          .default(180)
          .describe('heartbeats, but no new phase or cycle for so long: it hangs'),
      })
      .prefault({}),
  })
  .superRefine((scenario, context) => {
    const { cpus, possibleCpus, pinCpu, memoryMiB, crashkernelMiB } = scenario.vm;
    if (crashkernelMiB !== undefined && crashkernelMiB > memoryMiB / 2)
      context.addIssue({
        code: 'custom',
        path: ['vm', 'crashkernelMiB'],
        message: `must be at most half of vm.memoryMiB (${memoryMiB})`,
      });
    if (possibleCpus !== undefined && possibleCpus < cpus)
      context.addIssue({
        code: 'custom',
        path: ['vm', 'possibleCpus'],
        message: `must be at least vm.cpus (${cpus})`,
      });
    if (pinCpu !== undefined && pinCpu >= cpus)
      context.addIssue({
        code: 'custom',
        path: ['vm', 'pinCpu'],
        message: `must be below vm.cpus (${cpus})`,
      });
    const { sectorSize, blockSize, allocationGroups } = scenario.filesystem;
    if (blockSize < sectorSize)
      context.addIssue({
        code: 'custom',
        path: ['filesystem', 'blockSize'],
        message: `must be at least filesystem.sectorSize (${sectorSize})`,
      });
    // mkfs.xfs wants a log of 64 MiB, and the log must fit into one group.
    const room = Math.floor((scenario.lun.sizeGiB * 1024) / 96);
    if (allocationGroups > room)
      context.addIssue({
        code: 'custom',
        path: ['filesystem', 'allocationGroups'],
        message: `a group needs 96 MiB: lun.sizeGiB ${scenario.lun.sizeGiB} has room for ${room}`,
      });
  });

/** Time limits, in seconds on a usual host. */
export type Limits = z.output<typeof scenarioSchema>['limits'];

export type ScenarioFile = z.output<typeof scenarioSchema>;

/** A scenario by its name, with all defaults filled in. */
export type Scenario = Omit<ScenarioFile, 'target' | 'iscsi' | 'workload'> & {
  name: string;
  target: string;
  workload: Omit<ScenarioFile['workload'], 'minMergedPerCycle' | 'minHeaderReadsPerCycle'>;
};

/** A scenario and where its workload's guest scripts are on this host. */
export interface LoadedScenario {
  scenario: Scenario;
  workloadDir: string;
}
