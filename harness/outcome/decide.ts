import * as z from 'zod';
import type { GuestFacts } from '../guest/guest-facts.js';
import { GuestMarkers, type WorkDone } from '../guest/guest-markers.js';
import type { KernelLog } from '../guest/kernel-log.js';
import type { LogEvidence, LogVerdict } from '../log/classify.js';
import type { Outcome } from './outcome-schema.js';

const ofGuest = z.string().optional().describe("names the guest, if it is not the trial's own");

/** Why a trial was ended. */
export const trialEndSchema = z.discriminatedUnion('why', [
  z.strictObject({ why: z.literal('crashed') }),
  z.strictObject({
    why: z.literal('finished'),
    lunBytesWritten: z
      .number()
      .nullish()
      .describe("by what QEMU counts, whatever the guest says; null where the LUN is no disk of QEMU's"),
  }),
  z.strictObject({ why: z.literal('step-failed') }),
  z.strictObject({ why: z.literal('silent'), seconds: z.number(), of: ofGuest }),
  z.strictObject({ why: z.literal('stalled'), seconds: z.number(), of: ofGuest }),
  // QEMU is gone; `code` 0: the guest reset or powered itself off.
  z.strictObject({ why: z.literal('exited'), words: z.string(), code: z.number().nullish(), of: ofGuest }),
  z.strictObject({ why: z.literal('not-started'), message: z.string() }),
  z.strictObject({ why: z.literal('left') }),
  z.strictObject({ why: z.literal('interrupted') }),
  // loopanic itself was ended, or the `worker` that ran it; what the guest had said by then is on disk.
  z.strictObject({ why: z.literal('cut-off'), worker: z.string().optional() }),
  // QEMU drops what it cannot write.
  z.strictObject({ why: z.literal('disk-full'), freeMiB: z.number() }),
  z.strictObject({ why: z.literal('flooded'), mib: z.number() }),
]);
export type TrialEnd = z.infer<typeof trialEndSchema>;

export interface Decision {
  outcome: Outcome;
  reason: string;
  corrupted: boolean;
  /** Every other boot of the cell would end in the same way. */
  certain: boolean;
}

/** What a trial asked the guest to be; the facts that come back must agree. */
export const expectedSchema = z.object({
  hardenedUsercopy: z.enum(['on', 'off']),
  release: z.string(),
  module: z.object({ srcversion: z.string().nullable(), buildId: z.string().nullable() }),
  filesystem: z.enum(['xfs', 'ext4']),
  sectorSize: z.int().describe('this and the other geometry of a file system: of XFS only'),
  blockSize: z.int(),
  nomerges: z.int(),
  transport: z
    .record(z.string(), z.string())
    .describe('settings of the transport, and the address of its target, as the guest tells them'),
  slubMinOrder: z.int().nullable(),
  slubMaxOrder: z.int().nullable().describe('largest order that kmalloc-512 may have'),
  redZone: z.boolean().describe('kmalloc-512 has red zones'),
  onlineCpus: z.int(),
  loopback: z.boolean().describe('the target is in the same guest'),
  allocationGroups: z.int(),
  writebackCentiseconds: z.int().nullable().describe('fs.xfs.xfssyncd_centisecs; null: as the kernel has it'),
  cycles: z.int().describe('cycles after which the workload ends'),
  proof: z
    .array(
      z.object({
        key: z.string(),
        least: z.int(),
        leastInAll: z.int(),
        bytes: z.int().default(0).describe('that one of them writes to the LUN'),
        words: z.string(),
        tooFew: z.string(),
      }),
    )
    .describe('what each cycle must have done, or the workload did not try what it should'),
});
export type Expected = z.infer<typeof expectedSchema>;

/** What a trial left, read from its files. */
export interface Seen {
  /** The console of the guest that crashed, if one did; else of the trial's own. */
  log: LogVerdict;
  /** The trial's own console. */
  markers: GuestMarkers;
  /** First place where that console lost something, if it is known to. */
  damage: string | null;
  /** Read back before the workload, and after it. */
  guest: GuestFacts | null;
  after: GuestFacts | null;
  kernelLog: KernelLog;
  /**
   * What kernels complained about since the modules were loaded: on the consoles of all guests, and in the log that the guest read at its
   * end.
   */
  complaints: readonly LogEvidence[];
}

/**
 * The outcome of a trial. What the kernel printed decides; how the trial ended only tells what its silence means. `survived` is given
 * last and only against proof: the guest came through every phase and cycle and said so without a gap, its kernel's whole log arrived and
 * complains about nothing, it wrote and read what it should, and it was what the scenario asked for, before and after. Whatever a kernel
 * complained about is told as `warned` at least: it is never a failure around the guest that could be tried again.
 */
export function decideOutcome(seen: Seen, expected: Expected, end: TrialEnd): Decision {
  const { failure } = seen.markers;
  // The kernel refuses a module for what it is, not by chance.
  return {
    ...decide(seen, expected, end),
    certain: failure !== undefined && /^modules: \S*modprobe /.test(failure),
  };
}

function decide(seen: Seen, expected: Expected, end: TrialEnd): Decision {
  const { log, markers, guest, after } = seen;
  if (log.outcome !== 'no-crash') return crashed(seen, expected);
  const recovered =
    guest && after && ports(guest) !== ports(after) && ports(guest) !== ''
      ? `the session was dropped and recovered: its port was ${ports(guest)}, and is ${ports(after) || 'none'}`
      : undefined;
  const complaint = seen.complaints[0]?.text ?? recovered;
  const failure = whyEnded(markers, end) ?? whyNotSurvived(seen, expected, end);
  if (complaint !== undefined) {
    if (failure === null) return decision('warned', complaint);
    if (failure.outcome === 'infra-error' || failure.outcome === 'no-boot')
      return decision('warned', `${complaint}; then ${failure.reason}`);
    return { ...failure, reason: `${failure.reason}; before: ${complaint}` };
  }
  const { work } = markers;
  return (
    failure ??
    decision(
      'survived',
      [
        `${work?.cycles} cycles`,
        ...telling(expected).map(({ key, words }) => `${work?.counts[key] ?? 0} ${words}`),
        'no crash',
      ].join(', '),
    )
  );
}

/** The first thing that was asked of the workload; if nothing was, the first that is counted. */
function telling({ proof }: Expected): Expected['proof'] {
  const asked = proof.find(({ least, leastInAll }) => least > 0 || leastInAll > 0) ?? proof[0];
  return asked ? [asked] : [];
}

const ports = ({ sessionPorts }: GuestFacts): string => sessionPorts.join(' ');

function decision(outcome: Outcome, reason: string, corrupted = false): Decision {
  return { outcome, reason, corrupted, certain: false };
}

function crashed({ log, markers, guest }: Seen, expected: Expected): Decision {
  if (
    markers.phase === 'boot' &&
    /Unable to mount root|No working init|no init found|IO-APIC \+ timer/i.test(log.reason)
  )
    return decision('no-boot', log.reason);
  if (log.outcome === 'reproduced') {
    const wrong = guest ? guestMismatch(guest, expected, 'told') : 'nothing was read back from it';
    // A panic all the same: it counts neither for nor against the module, and is not forgotten.
    if (wrong)
      return decision('other-crash', `it panicked as sought, but the guest was not as asked: ${wrong}`, true);
    return decision('reproduced', log.reason, log.corrupted);
  }
  return decision('other-crash', log.reason, log.corrupted);
}

/** What ended the trial before its workload did; null if the guest said that it has ended. */
function whyEnded(markers: GuestMarkers, end: TrialEnd): Decision | null {
  const of = 'of' in end && end.of !== undefined ? `of ${end.of} ` : '';
  const { phase } = markers;
  switch (end.why) {
    case 'interrupted':
      return decision('infra-error', `interrupted in phase ${phase}`);
    case 'cut-off':
      return decision('infra-error', `cut off in phase ${phase}, when ${end.worker ?? 'loopanic was ended'}`);
    case 'not-started':
      return decision('infra-error', end.message);
    case 'disk-full':
      return decision(
        'infra-error',
        `the results' file system is full (${end.freeMiB} MiB free) in phase ${phase}: what the guest said may be lost`,
      );
    case 'flooded':
      return decision('infra-error', `the guest sent more than ${end.mib} MiB in phase ${phase}`);
  }
  if (markers.failure !== undefined)
    return decision('infra-error', `a step failed in the guest: ${markers.failure}`);
  switch (end.why) {
    case 'silent':
    case 'stalled': {
      const what = end.why === 'silent' ? 'no output' : 'no progress';
      return decision(
        phase === 'boot' ? 'no-boot' : 'hung',
        `${what} ${of}for ${end.seconds} s in phase ${phase}`,
      );
    }
    case 'exited':
      // One that is told to end by a signal exits with 0 too.
      if (end.code === 0 && !/terminating on signal/.test(end.words)) {
        const text = `${end.of ?? 'the guest'} reset or powered itself off in phase ${phase}, without a crash report`;
        return phase === 'boot' ? decision('no-boot', text) : decision('other-crash', text, true);
      }
      return decision('infra-error', `QEMU ${of}ended in phase ${phase}: ${end.words || 'it said nothing'}`);
    case 'left':
      return decision('infra-error', `the guest was left in phase ${phase} before its workload ended`);
    case 'crashed':
      return decision('other-crash', 'the crash report cannot be read', true);
    case 'step-failed':
    case 'finished':
      return null;
    default:
      // Of a file that was written by hand.
      return decision('infra-error', `nobody knows what ended it: ${String((end as { why?: unknown }).why)}`);
  }
}

/** Phases that every survivor came through; a target on another guest has its own console. */
const NEEDED_PHASES = ['modules', 'login', 'mount', 'workload'] as const;

/** What is missing to the proof that a guest whose workload ended has survived it, or null. */
function whyNotSurvived(seen: Seen, expected: Expected, end: TrialEnd): Decision | null {
  const { markers, guest, after, kernelLog } = seen;
  const no = (reason: string): Decision => decision('infra-error', reason);
  if (!markers.finished) return no('the workload did not say that it ended');
  const [fault] = markers.faults;
  if (fault !== undefined) return no(`the console is not whole: ${fault}`);
  if (seen.damage !== null) return no(`the console is not whole: ${seen.damage}`);
  const [missing] = markers.missing(expected.loopback ? [...NEEDED_PHASES, 'target'] : NEEDED_PHASES);
  if (missing !== undefined) return no(`the guest never said that it was in phase ${missing}`);
  const partial = kernelLog.notWhole(markers.kernelLog) ?? contradiction(markers, kernelLog);
  if (partial !== null) return no(`the kernel's log is not whole: ${partial}`);
  if (!guest || !after)
    return no(`nothing was read back from the guest ${guest ? 'after its workload' : ''}`.trim());
  if (guest.sessionPorts.length === 0)
    return no("the session's own port is unknown: whether it was recovered cannot be told");
  const before = guestMismatch(guest, expected, 'all');
  if (before) return no(`the guest was not as asked: ${before}`);
  const since = guestMismatch(after, expected, 'all');
  if (since) return no(`the guest was not as asked after its workload: ${since}`);
  return whyNotTried(markers.work, expected) ?? whyNotWritten(markers.work, expected, end);
}

/** The kernel's log must tell the same story as the console. */
function contradiction(markers: GuestMarkers, kernelLog: KernelLog): string | null {
  const again = new GuestMarkers(markers.token);
  for (const line of kernelLog.lines) again.push(line);
  if (again.faults[0] !== undefined) return `in it, ${again.faults[0]}`;
  const same = JSON.stringify(again.work) === JSON.stringify(markers.work) && again.done;
  return same ? null : 'it says something else of the workload than the console';
}

/** Why the workload is no trial of the module: it did too little, in all or in one of its cycles. */
function whyNotTried(work: WorkDone | null, expected: Expected): Decision | null {
  const no = (reason: string): Decision => decision('infra-error', reason);
  if (!work || work.cycles < 1 || work.bytesWritten < 1)
    return no('the workload wrote nothing to the LUN, so it proves nothing');
  if (work.cycles !== expected.cycles)
    return no(`the workload ended after ${work.cycles} of ${expected.cycles} cycles`);
  for (const [index, counts] of work.perCycle.entries())
    for (const { key, least, words, tooFew } of expected.proof)
      if ((counts[key] ?? 0) < least)
        return no(`cycle ${index + 1} completed ${counts[key] ?? 0} ${words}, not ${least}: ${tooFew}`);
  for (const { key, leastInAll, words, tooFew } of expected.proof)
    if ((work.counts[key] ?? 0) < leastInAll)
      return no(`all cycles completed ${work.counts[key] ?? 0} ${words}, not ${leastInAll}: ${tooFew}`);
  return null;
}

/**
 * Part of what an initiator says that it wrote which a LUN's disk receives at least: its target may keep it in memory, and write once what came
 * several times (1.0 and more were seen). And of what the proof takes, which comes in each cycle before the LUN is unmounted.
 */
const LEAST_RECEIVED = { said: 0.1, proof: 0.5 };

/**
 * Why the workload did not do what it says: the LUN's disk, which is the host's, did not receive what its proof takes. A module under test runs
 * in the guest's kernel and could say anything there, of bytes as of counts. Null also where the LUN is no disk of QEMU's.
 */
function whyNotWritten(work: WorkDone | null, { proof, cycles }: Expected, end: TrialEnd): Decision | null {
  if (end.why !== 'finished' || end.lunBytesWritten === null) return null;
  const no = (reason: string): Decision => decision('infra-error', reason);
  if (end.lunBytesWritten === undefined) return no('how much the disk of the LUN received was not saved');
  const said = work?.bytesWritten ?? 0;
  const takes = proof.reduce(
    (most, { key, least, bytes }) => Math.max(most, bytes * Math.max(work?.counts[key] ?? 0, cycles * least)),
    0,
  );
  if (said < takes)
    return no(`the guest says that it wrote ${said} bytes to the LUN, and counts what takes ${takes}`);
  const least = Math.max(said * LEAST_RECEIVED.said, takes * LEAST_RECEIVED.proof);
  return end.lunBytesWritten < least
    ? no(`the guest says that it wrote ${said} bytes to the LUN, whose disk received ${end.lunBytesWritten}`)
    : null;
}

/**
 * First difference between what was asked for and what the guest had, or null. `all`: a fact that was not told is a difference. `told`:
 * only facts that were told count, but which module was loaded must be among them (it is told first): a guest may crash early.
 */
function guestMismatch(guest: GuestFacts, expected: Expected, facts: 'all' | 'told'): string | null {
  const orders = Object.values(guest.slabs).map((slab) => slab.order);
  const lowest = orders.reduce((least, order) => Math.min(least, order), Number.POSITIVE_INFINITY);
  const { module } = expected;
  const [identity, loaded, wantedModule] =
    module.buildId === null
      ? ['module srcversion', guest.module.srcversion, module.srcversion]
      : ['module build id', guest.module.buildId, module.buildId];
  if (loaded === null || loaded !== wantedModule)
    return `${identity} is ${loaded ?? 'unknown'}, not ${wantedModule}`;
  const told = (text: string | undefined | null, value: unknown): unknown => (text == null ? null : value);
  const pairs: [string, unknown, unknown][] = [
    ['kernel release', guest.release, expected.release],
    ['hardened_usercopy', guest.hardenedUsercopy, expected.hardenedUsercopy],
    ['file system', guest.filesystem.name, expected.filesystem],
    ['nomerges', guest.block.nomerges, expected.nomerges],
    ...(expected.filesystem === 'xfs' ? geometry(guest, expected) : []),
    ...Object.entries(expected.transport).map(([key, value]): [string, unknown, unknown] => [
      key.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`),
      guest.transport[key] ?? null,
      value,
    ]),
    [
      'red zones of kmalloc-512',
      guest.slabDebug.redZone ?? (expected.redZone ? null : false),
      expected.redZone,
    ],
    ['online CPUs', told(guest.cpus.online, countCpus(guest.cpus.online)), expected.onlineCpus],
  ];
  for (const [name, found, wanted] of pairs)
    if (found !== wanted && (facts === 'all' || found !== null))
      return `${name} is ${found ?? 'unknown'}, not ${wanted}`;
  const { slubMinOrder, slubMaxOrder } = expected;
  if (orders.length === 0 && facts === 'told') return null;
  if (slubMinOrder !== null && (orders.length === 0 || lowest < slubMinOrder))
    return `slab order is ${orders.length === 0 ? 'unknown' : lowest}, not at least ${slubMinOrder}`;
  const order = guest.slabs['kmalloc-512']?.order;
  if (slubMaxOrder !== null && (order === undefined || order > slubMaxOrder))
    return `slab order of kmalloc-512 is ${order ?? 'unknown'}, not at most ${slubMaxOrder}`;
  return null;
}

/** Of XFS: what its superblock says, and how often it writes back. */
function geometry({ filesystem }: GuestFacts, expected: Expected): [string, unknown, unknown][] {
  return [
    ['sector size', filesystem.sectorSize, expected.sectorSize],
    ['filesystem block size', filesystem.blockSize, expected.blockSize],
    ['allocation groups', filesystem.allocationGroups, expected.allocationGroups],
    [
      'writeback interval',
      filesystem.writebackCentiseconds,
      expected.writebackCentiseconds ?? filesystem.writebackCentiseconds,
    ],
  ];
}

/** Number of CPUs in a kernel CPU list such as `0-3,5`. */
function countCpus(list: string | null): number {
  let count = 0;
  for (const part of (list ?? '').split(',')) {
    const [from = '', to = from] = part.split('-');
    if (from !== '') count += Number(to) - Number(from) + 1;
  }
  return count;
}
