import * as z from 'zod';

const objectSchema = z.object({
  address: z.string(),
  cache: z.string(),
  allocated: z.boolean().nullable().describe('null if crash could not tell'),
  firstBytes: z.string().nullable().describe('first 32 bytes, hex; null if they could not be read'),
  header: z
    .object({
      magic: z.string(),
      meaning: z.string(),
      allocationGroup: z.int().nullable(),
      length: z.int().nullable(),
    })
    .nullable()
    .describe('XFS metadata header, if the object begins with one'),
});

/** Everything that was recovered from a dump. A fact is null if it could not be. */
export const factsSchema = z.object({
  kernel: z.string().nullable(),
  panic: z.string().nullable().describe("crash's panic line"),
  usercopy: z
    .object({
      line: z.string(),
      object: z.string(),
      length: z.int(),
      direction: z.string(),
      offset: z.int().nullable().describe('bytes into the object; printed by 4.16 and later'),
      address: z.string().nullable().describe('printed by kernels before 4.16'),
    })
    .nullable()
    .describe("the kernel log's usercopy line"),
  task: z.object({ comm: z.string(), pid: z.int(), cpu: z.int(), address: z.string() }).nullable(),
  stack: z.array(z.string()),
  object: z
    .object({
      address: z.string().describe('first byte that was to be copied'),
      base: z.string().nullable().describe('first byte of the slab object there'),
      cache: z.string(),
      objectSize: z.int(),
      slabSize: z.string(),
      allocated: z.boolean(),
      page: z.string(),
      headPage: z.string(),
      pageIs: z.enum(['head', 'tail']).describe('of its compound page'),
    })
    .nullable(),
  skb: z
    .object({
      address: z.string(),
      cache: z.string(),
      frame: z.string().describe('function whose frame held it'),
      len: z.int(),
      dataLen: z.int(),
      headLen: z.int(),
      head: z.string(),
      end: z.int(),
      sharedInfo: z.string(),
      fragments: z.int(),
      sock: z.string(),
    })
    .nullable(),
  fragment: z
    .object({
      index: z.int(),
      page: z.string(),
      offset: z.int(),
      size: z.int(),
      address: z.string().describe('kernel address of its first byte'),
    })
    .nullable(),
  compound: z
    .object({
      page: z.string().describe('its head page'),
      order: z.int(),
      bytes: z.int(),
      offset: z.int().describe("bytes from its start to the fragment's"),
      next: z.string().describe('the page behind it'),
      nextHead: z.string().describe('head page of what that belongs to; itself, if to nothing larger'),
    })
    .nullable()
    .default(null)
    .describe('the compound page that the fragment begins in; sought where a copy runs across its end'),
  sent: z
    .array(z.object({ page: z.string(), offset: z.int(), size: z.int() }))
    .default([])
    .describe(
      "calls of the function that sends pages by reference, with the object's page, in order, from the trace that the kernel printed; none if it printed none",
    ),
  objects: z.array(objectSchema).describe('every whole object that the copy spans'),
  socket: z
    .object({ local: z.string(), localPort: z.int(), remote: z.string(), remotePort: z.int() })
    .nullable()
    .describe('of the receiver'),
  processes: z
    .object({
      receiver: z.object({ comm: z.string(), pid: z.int() }).nullable(),
      initiator: z
        .object({ comm: z.string(), pid: z.int() })
        .nullable()
        .describe("the initiator's sending work queue"),
    })
    .nullable(),
  module: z
    .object({ name: z.string(), address: z.string(), size: z.int(), srcversion: z.string().nullable() })
    .nullable(),
});
export type AnalysisFacts = z.infer<typeof factsSchema>;

export const checkSchema = z.object({
  name: z.string(),
  expected: z.string(),
  found: z.string(),
  holds: z.boolean(),
});
export type AnalysisCheck = z.infer<typeof checkSchema>;

/** analysis.json: the article's walk through a dump. */
export const analysisSchema = z
  .object({
    schemaVersion: z.literal(1),
    vmcore: z.string(),
    complete: z.boolean().describe('every step could be taken'),
    problem: z.string().nullable().describe('what stopped the walk'),
    facts: factsSchema,
    checks: z.array(checkSchema),
    conclusion: z.object({
      sought: z.enum(['yes', 'no', 'not-provable']),
      text: z.string(),
    }),
    seconds: z.object({ start: z.number().describe('crash start-up alone'), total: z.number() }),
  })
  .meta({ id: 'analysis' });
export type Analysis = z.infer<typeof analysisSchema>;
