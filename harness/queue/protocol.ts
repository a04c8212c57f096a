import { join } from 'node:path';
import * as z from 'zod';
import { UsageError } from '../base/errors.js';
import { contentKey } from '../base/files.js';
import { imagesDir } from '../base/paths.js';
import { trialEndSchema } from '../outcome/decide.js';
import { folderContent, programKey, programVersion } from '../run/cell-key.js';
import { TRIAL_FILES } from '../trial/conclude.js';
import type { TrialPlan } from '../trial/plan.js';

/** Seconds between two signs of life of a worker. */
export const BEAT_SECONDS = 4;
/** A worker, or a coordinator, of which nothing was heard for so many seconds is lost. */
export const LOST_SECONDS = 60;
/** The same where its connection was ended: its process is gone, or soon back. */
export const HUNG_UP_SECONDS = 3 * BEAT_SECONDS;
/** Trials of one cell that may take their worker with them before the cell is set aside. */
export const MOST_LOST = 3;
/** Bytes of a file that are sent at a time. */
export const CHUNK_BYTES = 2 ** 20;

/** Which loopanic this is: two that differ in it must not work on one run. */
export interface Version {
  loopanic: string;
  /** Content of the program, and of the scripts that it takes into guests. */
  code: string;
}

export async function ownVersion(): Promise<Version> {
  const scripts = ['guest', 'capture'].map((name) => folderContent(join(imagesDir, name)));
  const code = contentKey(await programKey(), ...(await Promise.all(scripts)).flat());
  return { loopanic: await programVersion(), code };
}

export const versionText = ({ loopanic, code }: Version): string => `loopanic ${loopanic} (${code})`;

/** What workers may be told apart by. Throws UsageError. */
export function checkLabel(label: string): string {
  if (/^[a-z0-9][a-z0-9._]{0,30}$/.test(label)) return label;
  throw new UsageError(
    'bad-usage',
    `${JSON.stringify(label)}: is no label: small letters, digits, '.' and '_' only`,
  );
}

const versionSchema = z.object({ loopanic: z.string().max(100), code: z.string().regex(/^[0-9a-f]{16}$/) });
const accelSchema = z.enum(['kvm', 'tcg']);
const hostSchema = z.object({ name: z.string().min(1).max(255), qemu: z.string().max(255) });

/** What a worker tells of itself, in Redis. */
export const workerSchema = z.object({
  version: versionSchema,
  host: hostSchema,
  accel: accelSchema,
  jobs: z.int().min(1),
  labels: z.array(z.string()),
});
export type WorkerRecord = z.infer<typeof workerSchema>;

/** What a coordinator tells of its run, in Redis. */
export const coordinatorSchema = z.object({ version: versionSchema, run: z.string(), hostname: z.string() });

/** A job of the queue: a trial that waits for a worker. All else comes from its coordinator. */
export const ticketSchema = z.object({
  run: z.string(),
  /** Where its coordinator is. */
  url: z.url({ protocol: /^http$/ }),
  token: z.string().min(32),
  trial: z.string().regex(/^[\w-]{1,64}$/),
});
export type Ticket = z.infer<typeof ticketSchema>;

/** What a worker says to have a trial. */
export const takeSchema = z.object({ version: versionSchema, host: hostSchema, accel: accelSchema });

/** A file by its content. */
export const partSchema = z.object({ sha256: z.string().regex(/^[0-9a-f]{64}$/), bytes: z.int().min(0) });
export type Part = z.infer<typeof partSchema>;

/** A trial's parts, as TrialFiles has them. What only a sparse file can be is known by its key in the plan. */
export const partsSchema = z.object({
  kernel: partSchema,
  crash: z.object({ kernel: partSchema, initramfs: partSchema }).nullable(),
  userland: partSchema,
  imageScript: partSchema,
  modules: partSchema,
  module: partSchema,
  workload: z.array(
    partSchema.extend({
      name: z
        .string()
        .regex(/^(?:(?!\.{1,2}(?:\/|$))[^/\p{Cc}]+\/)*(?!\.{1,2}$)[^/\p{Cc}]+$/u, 'is no name of a file')
        .max(1000),
      isExecutable: z.boolean(),
    }),
  ),
  /** Key of the root disk's image; null without one. */
  rootDisk: z.string().nullable(),
  image: z.string(),
});
export type Parts = z.infer<typeof partsSchema>;

/** What came as JSON, looked at by nobody yet; null if it is none. */
export function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** A trial as its worker gets it. The plan is its coordinator's, of the same program. */
export interface Assignment {
  plan: TrialPlan;
  parts: Parts;
}

/** Why a trial was ended, and seconds since QEMU's start. */
export const endSchema = z.object({
  end: trialEndSchema,
  timings: z.record(z.string().max(64), z.number()),
});
/** A worker cannot go on with it: for something that is wrong with it or its host, or because it was stopped. */
export const abandonedSchema = z.object({ worker: z.string().max(1000), isFault: z.boolean() });
/** And what its files are by then. */
export const endedSchema = endSchema.extend({ files: z.record(z.string(), partSchema) });
export const refusedSchema = z.object({ why: z.string().max(1000) });
export const beatSchema = z.object({ status: z.string().max(500) });

/** Files that a worker brings: logs while they grow, dumps at the end. */
export const LOGS: readonly string[] = [
  TRIAL_FILES.console,
  TRIAL_FILES.guest,
  TRIAL_FILES.qemu,
  TRIAL_FILES.peerConsole,
  TRIAL_FILES.peerGuest,
  TRIAL_FILES.peerQemu,
];
export const DUMPS: readonly string[] = ['vmcore-dmesg.txt', 'vmcore', 'dump.json'];
