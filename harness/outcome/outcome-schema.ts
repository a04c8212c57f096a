import * as z from 'zod';
import { gateSchema } from '../guest/gate-reading.js';
import { guestSchema } from '../guest/guest-facts.js';
import { phases } from '../guest/guest-markers.js';
import { signatureSchema } from '../log/signature.js';
import { moduleInfoSchema } from '../module/identity.js';

export const outcomes = [
  'reproduced',
  'other-crash',
  'warned',
  'survived',
  'hung',
  'no-boot',
  'infra-error',
] as const;
export type Outcome = (typeof outcomes)[number];

const seconds = z.number().describe('seconds');

/** A line of one of the trial's logs. */
const citationSchema = z.object({
  file: z.string().regex(/^[\w-]+(\.[\w-]+)*$/, "must be the name of a file in the trial's folder"),
  line: z.int(),
  text: z.string(),
});

/** outcome.json: everything that is known of one trial. */
export const outcomeSchema = z
  .object({
    schemaVersion: z.literal(1),
    kernel: z.string(),
    module: z.string(),
    moduleInfo: moduleInfoSchema
      .optional()
      .describe('what that module is; the first outcome.json files do not tell it'),
    scenario: z.string(),
    bug: z.string().default('iscsi-slab').describe('which bug of the family was sought'),
    trial: z.int().describe('number of the trial in its cell, from 1'),
    cellKey: z
      .string()
      .default('')
      .describe("names everything that the trial's cell was made of, and the program that ran it"),
    seed: z.int().describe('repeats the workload of this trial'),
    outcome: z.enum(outcomes),
    reason: z.string().describe('one line: why this outcome'),
    signature: signatureSchema.nullable(),
    corrupted: z
      .boolean()
      .describe('the crash report is too damaged to tell; the trial counts neither for nor against'),
    certain: z
      .boolean()
      .default(false)
      .describe('every other boot of the cell would end so: it is not tried again'),
    interrupted: z
      .boolean()
      .describe('the run was stopped during this trial, or its worker was lost or could not run it'),
    ended: z
      .record(z.string(), z.union([z.string(), z.number(), z.null()]))
      .default({})
      .describe('why the trial was ended; with its logs and its plan, all that the outcome follows from'),
    phase: z.enum(phases).describe('how far the trial came'),
    timings: z
      .record(z.string(), seconds)
      .describe('seconds from the start of QEMU: when each phase began, and `outcome`'),
    accel: z.enum(['kvm', 'tcg']),
    guest: guestSchema.nullable(),
    gate: gateSchema
      .nullable()
      .default(null)
      .describe('what a probe saw of the gate; null: it was not read, for the reason in gateWhy'),
    gateWhy: z.string().nullable().default(null).describe('why the gate was not read; null if it was'),
    workload: z
      .object({
        cycles: z.int(),
        bytesWritten: z.int(),
        mergedTwoSectorWrites: z.int().describe('completed without error; counts.merged'),
        headerReads: z.int().default(0).describe('AGFs and AGIs that were read from the LUN; counts.reads'),
        counts: z
          .record(z.string(), z.int())
          .default({})
          .describe('what the bug counts (loopanic bug show): completed without error'),
        perCycle: z.array(z.record(z.string(), z.int())).default([]),
      })
      .nullable()
      .describe('proof of work'),
    evidence: z.array(citationSchema),
    warnings: z.array(citationSchema),
  })
  .meta({ id: 'outcome' });

export type TrialOutcome = z.infer<typeof outcomeSchema>;
