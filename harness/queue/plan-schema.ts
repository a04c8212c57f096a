import * as z from 'zod';
import { moduleInfoSchema } from '../module/identity.js';
import { expectedSchema } from '../outcome/decide.js';
import { type Scenario, scenarioSchema } from '../scenario/scenario-schema.js';
import type { TrialPlan } from '../trial/plan.js';

const key = z.string().regex(/^(?!\.)[\w.+~@-]{1,250}$/, 'is no key of a part');
const modules = z.array(z.string().regex(/^[\w-]{1,100}$/)).max(500);

/** A scenario with its defaults filled in, as plans have it: what a scenario file may say, and nothing else. */
const filledIn = z
  .looseObject({ name: z.string().max(500), target: z.string() })
  .transform((given, context): Scenario => {
    const { name, target, ...file } = given;
    const parsed = scenarioSchema.safeParse({ ...file, target });
    if (!parsed.success) {
      context.addIssue({ code: 'custom', message: parsed.error.issues[0]?.message ?? 'is none' });
      return z.NEVER;
    }
    const { iscsi: _, workload, ...rest } = parsed.data;
    const { minMergedPerCycle: __, minHeaderReadsPerCycle: ___, ...work } = workload;
    return { ...rest, name, target, workload: work };
  });

/**
 * A plan that came from elsewhere: its words go to QEMU, to mkfs and into file names of this host, so each is looked at. The rest goes into the guest.
 */
export const planSchema: z.ZodType<TrialPlan> = z.object({
  kernel: key,
  module: z.string().max(500),
  moduleInfo: moduleInfoSchema,
  trial: z.int().min(1),
  cellKey: z.string().max(100),
  seed: z.int().min(0),
  token: z.string().regex(/^[0-9a-f]{8}$/),
  scenario: filledIn,
  accel: z.enum(['kvm', 'tcg']),
  host: z.object({ name: z.string(), qemu: z.string() }).optional(),
  dump: z.enum(['kdump', 'qmp', 'none']),
  profile: z.object({
    hardenedUsercopyBuilt: z.boolean(),
    freelistRandom: z.boolean(),
    modules,
    optionalModules: modules,
  }),
  mkfs: z.array(z.string().regex(/^[\w=.,-]{1,100}$/)).max(50),
  crashkernelMiB: z.int().min(16).max(4096),
  parts: z.object({
    kernel: key,
    image: key,
    modules: key,
    capture: key.nullable(),
    lun: key.nullable(),
    scripts: key,
    module: key,
  }),
  rootDisk: z.boolean(),
  modulePath: z
    .string()
    .regex(/^lib\/modules\/(?!\.)[\w.+~-]+\/kernel(?:\/(?!\.)[\w-]+)+\.ko$/, 'is no place of a module'),
  expected: expectedSchema,
}) as never;
