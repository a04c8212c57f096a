import * as z from 'zod';
import { kernelPackageSchema } from '../kernel/kernel.js';
import { moduleInfoSchema } from '../module/identity.js';
import { outcomeSchema } from '../outcome/outcome-schema.js';
import { expectationSchema } from '../scenario/matrix-schema.js';
import { verdictSchema } from '../verdict/verdict.js';
import { RUN_ID } from './run-id.js';

const cellSchema = z.object({
  kernel: z.string(),
  module: z.string(),
  scenario: z.string(),
  verdict: verdictSchema.nullable().describe('null while the cell has not been judged'),
  reason: z.string().describe('one line: what the verdict rests on'),
  warnings: z.array(z.string()).describe('what a reader must know before trusting the verdict'),
  control: z
    .object({ kernel: z.string(), module: z.string(), scenario: z.string() })
    .nullable()
    .describe('its positive control, another cell of this run'),
  statistics: z
    .object({
      counted: z.int().describe('trials that panicked or survived'),
      panicked: z.int(),
      survived: z.int(),
      retried: z.int().describe('infra errors and guests that never booted, of which no kernel complained'),
      cutOff: z.int().default(0).describe('trials that ended with their run'),
      odd: z.int().describe('hangs, other crashes, warnings'),
      rate: z
        .object({ share: z.number(), low: z.number(), high: z.number() })
        .nullable()
        .describe('panicked of counted, with its 95 % Wilson interval'),
      missChance: z
        .number()
        .nullable()
        .describe(
          'largest share of such runs, over all panic probabilities, that would call a module clean which is as bad as the positive control',
        ),
      gate: z
        .object({
          boots: z.int().describe('with a whole reading'),
          probe: z.string(),
          marks: z
            .string()
            .nullable()
            .describe('what the probe learned of the kernel; null: not the same in all boots'),
          copy: z.enum(['whole-objects', 'across-pages']).describe('what a leak is'),
          slabSegments: z.int(),
          leaked: z.int(),
          leakedHead: z.int(),
          leakedTail: z.int(),
          neighbours: z.int(),
          otherSegments: z.int(),
          cutShort: z.boolean().describe('some were cut short by a panic: what was sent in all is not known'),
          pagesPerSlab: z
            .int()
            .nullable()
            .describe('of kmalloc-512; null: unknown, or not the same in all boots'),
        })
        .nullable()
        .default(null)
        .describe("the gate's readings of its trials, added up; null if none is whole"),
    })
    .nullable(),
  provenBy: z
    .enum(['panic', 'reading', 'statistics', 'survival'])
    .nullable()
    .default(null)
    .describe(
      'what decides: a panic that was seen, a reading of the gate, odds, or no more than that it survived; null without a verdict',
    ),
  key: z
    .string()
    .default('')
    .describe('names everything that its trials are made of, and the program that runs them'),
  unmade: z.string().nullable().default(null).describe('why it cannot be made; null if it can'),
  isControl: z.boolean().default(false).describe('it is the positive control of other cells: it must panic'),
  expected: z.object({ verdict: expectationSchema, why: z.string() }).optional(),
  kernelInfo: z
    .object({
      key: z.string().default('').describe("names the kernel's files: another build has another key"),
      release: z.string(),
      version: z.string(),
      origin: z.string(),
      packages: z.array(kernelPackageSchema),
      builtOf: z
        .string()
        .nullable()
        .default(null)
        .describe(
          'of a kernel that loopanic built: names its source and configuration, without the patches; two of the same differ in these alone',
        ),
      freelistRandom: z
        .boolean()
        .default(true)
        .describe('slabs hand their objects out in an order that each boot draws anew'),
    })
    .nullable(),
  moduleInfo: moduleInfoSchema.nullable(),
  image: z.object({ name: z.string(), key: z.string() }),
  scripts: z
    .string()
    .default('')
    .describe('content hash of the scripts that ran in the guest, the workload among them'),
  repeat: z
    .array(z.string())
    .default([])
    .describe("loopanic's arguments that run such a trial again; its seed comes on top"),
  scenarioDefinition: z
    .record(z.string(), z.unknown())
    .nullable()
    .describe('the scenario with all defaults filled in'),
  wantedTrials: z.int().min(1).describe('survivors that `clean` takes'),
  durationSeconds: z.number(),
  trials: z.array(
    outcomeSchema.extend({
      folder: z.string().describe("relative to run.json's folder"),
      host: z
        .object({ name: z.string(), qemu: z.string() })
        .nullable()
        .default(null)
        .describe('where it ran; the first run.json files do not tell it'),
      dump: z
        .object({ method: z.enum(['kdump', 'qmp', 'serial']), bytes: z.int(), kept: z.boolean() })
        .nullable()
        .describe('null if nothing crashed, or no dump was wanted; dump.json has it all'),
      analysis: z
        .object({ sought: z.enum(['yes', 'no', 'not-provable']), text: z.string() })
        .nullable()
        .describe('conclusion of analysis.json'),
    }),
  ),
});

/** run.json: what one command did. What has a default was not in the first run.json files. */
export const runSchema = z
  .object({
    schemaVersion: z.literal(1),
    run: z.string().regex(RUN_ID, 'is no id of a run').describe("the run's id, which is its folder's name"),
    command: z.string(),
    startedAt: z.iso.datetime().describe('ISO 8601, UTC'),
    resumedAt: z.array(z.string()).describe('when --resume went on with it'),
    finishedAt: z.string().nullable().describe('null while the run goes on, or if it was killed'),
    durationSeconds: z.number(),
    interrupted: z.boolean(),
    host: z.object({
      hostname: z.string(),
      kernel: z.string(),
      cpus: z.int(),
      memoryMiB: z.int(),
      accel: z.enum(['kvm', 'tcg']),
      accelReason: z.string(),
    }),
    versions: z.object({
      loopanic: z.string(),
      code: z.string().default('').describe('content hash of the program'),
      node: z.string(),
      qemu: z.string(),
    }),
    rules: z
      .int()
      .default(1)
      .describe(
        'version of the rules that verdicts follow from trials by; 1: those before a guarantee was given; 2: before the gate was read',
      ),
    matrix: z
      .object({
        name: z.string(),
        file: z.string(),
        shard: z
          .object({
            part: z.int().min(1),
            of: z.int().min(1),
            whole: z.string().describe('names the cells of the whole matrix'),
          })
          .nullable()
          .default(null)
          .describe('which part of the matrix this is; null: all of it'),
      })
      .nullable()
      .default(null)
      .describe('the matrix file, if the cells are from one'),
    request: z
      .object({
        trials: z.int(),
        dump: z.enum(['kdump', 'qmp', 'none']),
        seed: z.int().nullable(),
        byReading: z
          .boolean()
          .default(false)
          .describe('a reading of the gate is proof, and statistics stand in where there is none'),
        noExpectationOk: z
          .boolean()
          .default(false)
          .describe('a cell of which nothing is expected may panic without being a failure'),
      })
      .default({ trials: 1, dump: 'kdump', seed: null, byReading: false, noExpectationOk: false })
      .describe('what was asked for, beside the cells'),
    confidence: z.number().nullable().describe('asked for; null: boots by number'),
    retries: z.int().describe('trials of a cell that might fail around the guest'),
    skipped: z
      .array(z.object({ kernel: z.string(), why: z.string() }))
      .describe('kernels that were left out: nothing follows for them'),
    mergedFrom: z
      .array(
        z.object({
          run: z.string(),
          shard: z.string().nullable(),
          hostname: z.string(),
          accel: z.enum(['kvm', 'tcg']),
          qemu: z.string(),
          cells: z.int(),
        }),
      )
      .default([])
      .describe(
        'runs that this one was made of; then `host` is that of the first, and each trial names its own',
      ),
    cells: z.array(cellSchema),
  })
  .meta({ id: 'run' });

/** Rules of this program (verdict/). A run that was judged by others is judged anew when it is read. */
export const RULES = 3;

export type RunDocument = z.infer<typeof runSchema>;
export type RunCell = RunDocument['cells'][number];
export type RunTrial = RunCell['trials'][number];
