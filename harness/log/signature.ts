import * as z from 'zod';
import type { Bug } from '../bug/bug.js';
import type { Sought } from '../bug/sought.js';
import type { CrashReport } from './crash-report.js';

/** What a usercopy crash looked like. Lengths and sizes in bytes. */
export const signatureSchema = z
  .object({
    kind: z.literal('usercopy'),
    direction: z.enum(['exposure', 'overwrite']),
    address: z.string().optional().describe('kernel address; printed by kernels before 4.16 only'),
    object: z.string().describe('slab cache, or what else the kernel named'),
    length: z.int().describe('bytes that the copy asked for'),
    offset: z.int().optional().describe('bytes into the object; printed by 4.16 and later'),
    objectSize: z
      .int()
      .nullable()
      .describe('bytes of one object of the cache; null if the name does not tell'),
    objects: z.number().nullable().describe('length / objectSize'),
    bug: z.object({ file: z.string(), line: z.int() }).nullable(),
    comm: z.string(),
    workqueue: z.string().optional().describe('of a task of a work queue'),
    pid: z.int(),
    cpu: z.int(),
    kernel: z.string().describe('release that the crash report names'),
    tainted: z.string().describe('taint flags; empty if not tainted'),
    stack: z.array(z.string()).describe('functions of the call trace, innermost first'),
  })
  .meta({ id: 'signature' });

export type Signature = z.infer<typeof signatureSchema>;

/**
 * Bytes of one object of a general-purpose kmalloc cache, from its name: `kmalloc-512`, and `kmalloc-1k` since 4.20
 * (mm/slab_common.c). Other caches, and kmalloc's special kinds (`dma-kmalloc-…`, `kmalloc-cg-…`, `kmalloc-rcl-…`), give null:
 * XFS metadata never lives there.
 */
export function kmallocObjectSize(cache: string): number | null {
  const match = /^kmalloc-(\d+)(k|M)?$/.exec(cache);
  if (!match) return null;
  const unit = match[2] === 'M' ? 1024 * 1024 : match[2] === 'k' ? 1024 : 1;
  const bytes = Number(match[1]) * unit;
  return bytes > 0 && Number.isSafeInteger(bytes) ? bytes : null;
}

/** The signature of a usercopy report, or null if the report is of another kind or lacks what identifies it. */
export function signatureOf(report: CrashReport): Signature | null {
  const { usercopy, cpu, pid, comm, workqueue, release } = report;
  if (!usercopy || cpu === undefined || pid === undefined || comm === undefined || release === undefined)
    return null;
  const objectSize = kmallocObjectSize(usercopy.object);
  return {
    kind: 'usercopy',
    direction: usercopy.direction,
    ...(usercopy.address === undefined ? {} : { address: usercopy.address }),
    object: usercopy.object,
    length: usercopy.length,
    ...(usercopy.offset === undefined ? {} : { offset: usercopy.offset }),
    objectSize,
    objects: objectSize === null ? null : usercopy.length / objectSize,
    bug: report.bug ?? null,
    comm,
    ...(workqueue === undefined ? {} : { workqueue }),
    pid,
    cpu,
    kernel: release,
    tainted: report.tainted ?? '',
    stack: report.stack,
  };
}

/**
 * Why a signature is not the sought one, or null if it is: an exposure, read by the bug's receiver where the bug says, of the kind of copy
 * that the bug is about. Sources of the rules: commit 08b11eaccfcf (libiscsi) and the report of the el7 panic; check_heap_object() in
 * mm/usercopy.c since 5.18.
 */
export function whyNotSought(signature: Signature, sought: Sought): string | null {
  return firstDifference(signature, sought)?.why ?? null;
}

/** The first thing in which a signature is not the sought one, with the number of those before it; null if there is none. */
function firstDifference(
  signature: Signature,
  { bug, receiver }: Sought,
): { step: number; why: string } | null {
  const { direction, comm, workqueue, stack } = signature;
  const differences = [
    direction === 'exposure' ? null : 'it is an overwrite, not an exposure',
    ...(bug.copy === 'whole-objects' ? notWholeObjects(signature) : notAcrossPages(signature)),
    receiver.comm.test(comm) ? null : `the reader was ${comm}, not ${receiver.words}`,
    receiver.workqueue && !receiver.workqueue.test(workqueue ?? '')
      ? `the reader's work queue was ${workqueue ?? 'not told'}, not ${receiver.words}`
      : null,
    stack.includes(bug.readIn) ? null : `${bug.readIn} is not in the stack`,
  ];
  const step = differences.findIndex((why) => why !== null);
  return step < 0 ? null : { step, why: differences[step] ?? '' };
}

/** Of what kind the copied memory must be, and how much of it. */
function notWholeObjects({ objects, object, length }: Signature): (string | null)[] {
  if (objects === null) return [`${object} is not a general-purpose kmalloc cache`];
  const whole = Number.isInteger(objects) && objects >= 2;
  return [null, whole ? null : `${length} bytes are not two or more whole objects of ${object}`];
}

/** A compound page has a power of two of bytes, two pages at least; one of them must end within the copy. */
function notAcrossPages({ object, offset, length }: Signature): (string | null)[] {
  if (object !== 'page alloc') return [`${object} is not a page`];
  if (offset === undefined) return [null, 'where in its page the copy began is not told'];
  for (let end = 8192; end < offset + length; end *= 2) if (end > offset) return [null, null];
  return [null, `${length} bytes at ${offset} do not run across the end of a compound page`];
}

/** The first of `soughts` that a signature is; or why it is none, by the one that it comes nearest to. */
export function matchSought(
  signature: Signature,
  soughts: readonly Sought[],
): { bug: Bug; why: null } | { bug: null; why: string } {
  let nearest = { step: -1, why: 'nothing is sought' };
  for (const sought of soughts) {
    const difference = firstDifference(signature, sought);
    if (difference === null) return { bug: sought.bug, why: null };
    if (difference.step > nearest.step) nearest = difference;
  }
  return { bug: null, why: nearest.why };
}
