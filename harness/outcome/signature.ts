import * as z from 'zod';
import type { CrashReport } from './crash-report.js';

/** What a usercopy crash looked like. Lengths and sizes in bytes. */
export const signatureSchema = z
  .object({
    kind: z.literal('usercopy'),
    direction: z.enum(['exposure', 'overwrite']),
    address: z.string().optional().describe('kernel address; printed by kernels before 4.16 only'),
    object: z.string().describe('slab cache, or what else the kernel named'),
    length: z.int().describe('bytes that the copy asked for'),
    objectSize: z
      .int()
      .nullable()
      .describe('bytes of one object of the cache; null if the name does not tell'),
    objects: z.number().nullable().describe('length / objectSize'),
    bug: z.object({ file: z.string(), line: z.int() }).nullable(),
    comm: z.string(),
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
  return Number(match[1]) * unit;
}

/** The signature of a usercopy report, or null if the report is of another kind or lacks what identifies it. */
export function signatureOf(report: CrashReport): Signature | null {
  const { usercopy, cpu, pid, comm, release } = report;
  if (!usercopy || cpu === undefined || pid === undefined || comm === undefined || release === undefined)
    return null;
  const objectSize = kmallocObjectSize(usercopy.object);
  return {
    kind: 'usercopy',
    direction: usercopy.direction,
    ...(usercopy.address === undefined ? {} : { address: usercopy.address }),
    object: usercopy.object,
    length: usercopy.length,
    objectSize,
    objects: objectSize === null ? null : usercopy.length / objectSize,
    bug: report.bug ?? null,
    comm,
    pid,
    cpu,
    kernel: release,
    tainted: report.tainted ?? '',
    stack: report.stack,
  };
}

/**
 * Why a signature is not the sought one, or null if it is: exposure of k ≥ 2 whole objects of a kmalloc cache, read by
 * `receiver` in tcp_recvmsg. Source of the rule: commit 08b11eaccfcf (libiscsi) and the report of the el7 panic.
 */
export function whyNotSought(signature: Signature, receiver: string): string | null {
  const { objects } = signature;
  if (signature.direction !== 'exposure') return 'it is an overwrite, not an exposure';
  if (objects === null) return `${signature.object} is not a general-purpose kmalloc cache`;
  if (!Number.isInteger(objects) || objects < 2)
    return `${signature.length} bytes are not two or more whole objects of ${signature.object}`;
  if (signature.comm !== receiver) return `the reader was ${signature.comm}, not ${receiver}`;
  if (!signature.stack.includes('tcp_recvmsg')) return 'tcp_recvmsg is not in the stack';
  return null;
}
