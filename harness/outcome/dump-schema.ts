import * as z from 'zod';

const rungSchema = z.object({
  method: z.enum(['kdump', 'qmp']),
  ok: z.boolean(),
  reason: z.string().describe('why it failed, or how it went'),
  seconds: z.number().describe('time that this rung took'),
});

/** dump.json: how the memory of a crashed guest was captured. It never bears on the outcome. */
export const dumpSchema = z
  .object({
    schemaVersion: z.literal(1),
    method: z
      .enum(['kdump', 'qmp', 'serial'])
      .describe('the rung that worked; serial: the console log is all there is'),
    complete: z.boolean(),
    bytes: z.int().describe('size of vmcore; 0 without one'),
    seconds: z.number().describe('from the crash to the dump on disk'),
    sha256: z.string().nullable().describe('of vmcore'),
    readable: z
      .object({ makedumpfile: z.boolean().nullable(), crash: z.boolean().nullable() })
      .describe(
        'whether the tool could read vmcore; null if it was not asked (not installed, no debug info)',
      ),
    kept: z.boolean().describe('whether vmcore was left in the folder (--keep-dumps)'),
    ladder: z.array(rungSchema),
  })
  .meta({ id: 'dump' });

export type DumpRecord = z.infer<typeof dumpSchema>;
export type DumpRung = z.infer<typeof rungSchema>;
