import * as z from 'zod';
import type { SoughtCopy } from '../bug/bug.js';
import type { LogLine } from '../log/log-line.js';
import type { WorkDone } from './guest-markers.js';

const callSchema = z.object({
  page: z.string().describe('address of its struct page'),
  offset: z.int(),
  size: z.int(),
});

/** What a probe in the guest saw of the gate: pages that were handed over to be sent by reference. Segments are calls of the probed function. */
export const gateSchema = z.object({
  probe: z.string().describe('the probed function'),
  marks: z
    .string()
    .default('')
    .describe(
      'what the probe learned of the kernel: size of struct page; place and test of what marks a slab, a tail, and its head',
    ),
  lost: z.int().describe('calls of which nothing is known: with any, this is no reading'),
  slabSegments: z
    .int()
    .describe(
      'sectors that lay in slab objects and were written to the LUN, by geometry and completed requests; of a leak across pages: writes across two huge pages, or pages of large folios, that were written',
    ),
  leaked: z
    .int()
    .describe(
      'slab segments, or pieces that ran across the end of a compound page, that reached the probed function',
    ),
  leakedHead: z.int().describe('of these, in the first page of their slab'),
  leakedTail: z.int().describe('of these, in another page of it'),
  neighbours: z.int().describe('leaked segments that begin in memory where the one before ended'),
  otherSegments: z.int().describe('segments of other pages that reached it: sending by reference works'),
  cutShort: z
    .boolean()
    .describe(
      "it ended within a cycle, by a panic or a failed step: the last calls are from the kernel's own print of its trace, or were read at the failure; what was sent in all is not known",
    ),
  joined: z
    .array(callSchema)
    .describe(
      'of a panic: the last two leaked segments that are neighbours, which the stack joined; or the one that held what was read, which the block layer had joined',
    ),
});
export type GateReading = z.infer<typeof gateSchema>;

/** One call of the probed function. */
export interface Call {
  /** Address of the struct page. */
  page: bigint;
  offset: number;
  size: number;
}

/** One leaked segment, as the kernel printed it. */
interface LeakedCall extends Call {
  tail: boolean;
}

/** Why there is no reading where no probe was asked for. */
export const NO_PROBE = 'the guest set no probe';

/** Words of `gate.rest`, and the largest sum of one. */
const MOST_RESTS = 256;
const MOST_COUNTED = 1e12;
/** Of an offset or a size: they are ints of the kernel's. */
const LARGEST = 0x7fff_ffffn;

/** Of gate.pl: its own calls have this size. */
const PING = 61;

/**
 * The gate's reading of a trial, or why there is none. `probe`: the guest's fact `gate.probe`, `why` its `gate.why`, `rest` its `gate.rest`:
 * what a cycle had sent in which a step failed. `sectorSize`: of the file system, in bytes; XFS keeps headers of less than a page in slab
 * objects. `copy`: what a leak is. Where it is a piece of two compound pages, what the kernel printed does not tell where they end; but a panic
 * as sought shows one. `console`: where a panicked kernel printed its trace.
 */
export function gateReading(
  told: {
    probe: string | undefined;
    why: string | undefined;
    rest?: string | undefined;
    sectorSize: number | null;
    copy: SoughtCopy;
    /** It crashed as sought: bytes that were read as one; null if it did not. */
    panicked: number | null;
  },
  work: WorkDone | null,
  console: readonly LogLine[],
): { gate: GateReading | null; gateWhy: string | null } {
  const none = (gateWhy: string): { gate: null; gateWhy: string } => ({ gate: null, gateWhy });
  if (told.probe === undefined) return none(told.why ?? NO_PROBE);
  const words = new Map(
    told.probe.split(' ').map((word) => [word.replace(/=.*/, ''), word.replace(/^[^=]*=/, '')]),
  );
  const marks = marksIn(words);
  if (marks === null) return none(`the probe cannot be read: ${told.probe}`);
  const counts = { ...work?.counts };
  const rest = [...(told.rest ?? '').matchAll(/(?:^| )([a-z]+)=(\d{1,12})(?= |$)/g)];
  // A cycle may be read more than once; sums stay exact, however much a guest says.
  for (const [, key = '', count] of rest.slice(0, MOST_RESTS))
    counts[key] = Math.min(MOST_COUNTED, (counts[key] ?? 0) + Number(count));
  const across = told.copy === 'across-pages';
  const calls = across ? [] : printedCalls(console, marks);
  const shown = calls.length + (across && told.panicked !== null ? 1 : 0);
  if (counts.leaked === undefined && shown === 0)
    return none(told.why ?? 'no cycle ended, and the kernel printed no trace');
  const pairs = calls.filter((call, index) => follows(call, calls[index - 1])).length;
  const at = calls.findLastIndex((call, index) => follows(call, calls[index - 1]));
  // The block layer may have joined them already.
  const whole = calls.findLastIndex(({ size }) => size === told.panicked);
  const joined = whole > at ? calls.slice(whole, whole + 1) : calls.slice(Math.max(0, at - 1), at + 1);
  const inSlabs = told.sectorSize !== null && told.sectorSize < 4096;
  const number = (key: string): number => counts[key] ?? 0;
  const headers = inSlabs ? (counts.headers ?? 2 * number('merged')) : 0;
  const sent = across ? number('spans') || number('folios') : headers;
  return {
    gate: {
      probe: words.get('function') ?? '',
      lost: number('gatelost'),
      marks: told.probe.replace(/^function=\S+ /, ''),
      slabSegments: Math.max(sent + shown, rest.length > 0 ? number('leaked') : 0),
      leaked: number('leaked') + shown,
      leakedHead: number('leakedheads') + calls.filter(({ tail }) => !tail).length,
      leakedTail: number('leakedtails') + calls.filter(({ tail }) => tail).length,
      neighbours: number('neighbours') + pairs,
      otherSegments: number('others'),
      cutShort: shown > 0 || rest.length > 0,
      joined: joined.map(inHexadecimal),
    },
    gateWhy: null,
  };
}

/** True if a call's bytes begin in memory where those of the one before ended: what the stack joins. */
export const follows = (call: Call, before: Call | undefined): boolean =>
  before !== undefined && before.page === call.page && before.offset + before.size === call.offset;

const inHexadecimal = ({ page, offset, size }: LeakedCall): z.infer<typeof callSchema> => ({
  page: `0x${page.toString(16)}`,
  offset,
  size,
});

/** A call as the kernel prints it: `… gate: (tcp_sendpage+0x0/0x50) page=… off=… size=… own=… tb=… hs=…`; null if a line is none. */
export function recordedCall(text: string): (Call & Partial<Record<'own' | 'tb' | 'hs', bigint>>) | null {
  const said = / gate: \(\S+\)(.*)$/.exec(text)?.[1];
  if (said === undefined) return null;
  const fields = new Map(
    [...said.matchAll(/ (\w+)=(0x[0-9a-f]{1,16}|\d{1,20})(?= |$)/g)].map(([, key = '', value = '']) => [
      key,
      BigInt(value),
    ]),
  );
  const [page, offset, size] = ['page', 'off', 'size'].map((key) => fields.get(key));
  if (page === undefined || offset === undefined || size === undefined) return null;
  // No call has more: the line is damaged.
  if (offset > LARGEST || size > LARGEST) return null;
  const words = Object.fromEntries(
    [...fields].filter(([key]) => key === 'own' || key === 'tb' || key === 'hs'),
  );
  return { page, offset: Number(offset), size: Number(size), ...words };
}

/** How the pages of a call are told apart. */
interface Marks {
  isTail: (word: bigint) => boolean;
  isSlab: (value: bigint) => boolean;
}

/** From `slab=0:&512 tail=8:&1`: what the words `own` and `hs` (of the head), and `tb`, must be. */
function marksIn(words: ReadonlyMap<string, string>): Marks | null {
  const tail = /:&(\d+)$/.exec(words.get('tail') ?? '')?.[1];
  const [, test, number] = /:(&|==)(\d+)$/.exec(words.get('slab') ?? '') ?? [];
  if (!words.has('function') || tail === undefined || number === undefined) return null;
  const [mask, value] = [BigInt(tail), BigInt(number)];
  return {
    isTail: (word) => (word & mask) !== 0n,
    isSlab: (word) => (test === '&' ? (word & value) !== 0n : word === value),
  };
}

/**
 * Calls with slab pages that the kernel printed when it panicked (ftrace_dump_on_oops), since the last cycle ended: `… : gate:
 * (tcp_sendpage+0x0/0x50) page=… off=… size=… own=… tb=… hs=… hd=…`; the probe's own pings are left out.
 */
function printedCalls(console: readonly LogLine[], { isTail, isSlab }: Marks): LeakedCall[] {
  const calls: LeakedCall[] = [];
  let dumping = false;
  for (const { text } of console) {
    // It comes a second time, and empty, at the panic itself.
    if (/^\s*Dumping ftrace buffer:/.test(text)) dumping = true;
    if (!dumping) continue;
    const call = recordedCall(text);
    if (call === null || call.size === PING) continue;
    const { page, offset, size, own, tb, hs } = call;
    if (own === undefined || tb === undefined || hs === undefined) continue;
    const tail = isTail(tb);
    if (isSlab(tail ? hs : own)) calls.push({ page, offset, size, tail });
  }
  return calls;
}
