import type { LogEvidence, LogVerdict } from './classify.js';
import type { GuestFacts } from './guest-facts.js';
import type { GuestMarkers } from './guest-markers.js';
import type { Outcome } from './outcome-schema.js';

/** Why a trial was ended. */
export type TrialEnd =
  | { why: 'crashed' }
  | { why: 'finished' }
  | { why: 'step-failed' }
  /** `of` names the guest, if it is not the trial's own. */
  | { why: 'silent'; seconds: number; of?: string }
  | { why: 'stalled'; seconds: number; of?: string }
  /** QEMU is gone; `code` 0: the guest reset or powered itself off. */
  | { why: 'exited'; words: string; code?: number | null; of?: string }
  | { why: 'not-started'; message: string }
  | { why: 'left' }
  | { why: 'interrupted' };

export interface Decision {
  outcome: Outcome;
  reason: string;
  corrupted: boolean;
}

/** What a trial asked the guest to be; the facts that come back must agree. */
export interface Expected {
  hardenedUsercopy: 'on' | 'off';
  release: string;
  module: { srcversion: string | null; buildId: string | null };
  sectorSize: number;
  blockSize: number;
  nomerges: number;
  headerDigest: 'None' | 'CRC32C';
  dataDigest: 'None' | 'CRC32C';
  slubMinOrder: number | null;
  /** Largest order that kmalloc-512 may have. */
  slubMaxOrder: number | null;
  /** kmalloc-512 has red zones. */
  redZone: boolean;
  onlineCpus: number;
  /** Of the iSCSI target, as the session has it. */
  targetAddress: string;
  allocationGroups: number;
  /** fs.xfs.xfssyncd_centisecs; null: as the kernel has it. */
  writebackCentiseconds: number | null;
  immediateData: 'Yes' | 'No';
  /** Cycles after which the workload ends. */
  cycles: number;
  /** Merged two-sector writes that a cycle must have issued on average, or the workload did not try what it should. */
  minMergedPerCycle: number;
}

/**
 * The outcome of a trial. The serial console decides; how the trial ended only tells what its silence means. `survived` is given
 * last and only against proof: the workload said that it ended, it wrote, and the guest was what the scenario asked for. `log` is the console of the
 * guest that crashed, if one did; `elsewhere` are warnings on the console of a second guest.
 */
export function decideOutcome(
  log: LogVerdict,
  markers: GuestMarkers,
  guest: GuestFacts | null,
  expected: Expected,
  end: TrialEnd,
  elsewhere: readonly LogEvidence[] = [],
): Decision {
  const decide = (outcome: Outcome, reason: string, corrupted = false): Decision => ({
    outcome,
    reason,
    corrupted,
  });
  if (log.outcome !== 'no-crash') {
    if (
      markers.phase === 'boot' &&
      /Unable to mount root|No working init|no init found|IO-APIC \+ timer/i.test(log.reason)
    )
      return decide('no-boot', log.reason);
    if (log.outcome === 'reproduced') {
      const wrong = guest ? guestMismatch(guest, expected, 'told') : 'nothing was read back from it';
      if (wrong) return decide('infra-error', `it panicked, but the guest was not as asked: ${wrong}`);
    }
    return decide(log.outcome, log.reason, log.corrupted);
  }
  if (end.why === 'interrupted') return decide('infra-error', `interrupted in phase ${markers.phase}`);
  if (end.why === 'not-started') return decide('infra-error', end.message);
  // Warnings of the boot, before the module under test was loaded, are not this trial's.
  const warning =
    markers.firstLine > 0
      ? (log.warnings.find((entry) => entry.line > markers.firstLine) ?? elsewhere[0])
      : undefined;
  if (markers.failure !== undefined) {
    const failed = `a step failed in the guest: ${markers.failure}`;
    // A step that fails after the kernel complained is the kernel's doing.
    return warning ? decide('warned', `${warning.text}; then ${failed}`) : decide('infra-error', failed);
  }
  const of = 'of' in end && end.of !== undefined ? `of ${end.of} ` : '';
  switch (end.why) {
    case 'silent':
    case 'stalled': {
      const what = end.why === 'silent' ? 'no output' : 'no progress';
      const outcome = markers.phase === 'boot' ? 'no-boot' : 'hung';
      return decide(outcome, `${what} ${of}for ${end.seconds} s in phase ${markers.phase}`);
    }
    case 'exited':
      // One that is told to end by a signal exits with 0 too.
      if (end.code === 0 && !/terminating on signal/.test(end.words)) {
        const text = `${end.of ?? 'the guest'} reset or powered itself off in phase ${markers.phase}, without a crash report`;
        return markers.phase === 'boot' ? decide('no-boot', text) : decide('other-crash', text, true);
      }
      return decide(
        'infra-error',
        `QEMU ${of}ended in phase ${markers.phase}: ${end.words || 'it said nothing'}`,
      );
    case 'left':
      return decide('infra-error', `the guest was left in phase ${markers.phase} before its workload ended`);
    case 'crashed':
      return decide('other-crash', 'the crash report cannot be read', true);
    case 'step-failed':
    case 'finished':
      break;
  }
  if (!markers.finished) return decide('infra-error', 'the workload did not say that it ended');
  if (!guest) return decide('infra-error', 'nothing was read back from the guest');
  const mismatch = guestMismatch(guest, expected, 'all');
  if (mismatch) return decide('infra-error', `the guest was not as asked: ${mismatch}`);
  const { work } = markers;
  if (!work || work.cycles < 1 || work.bytesWritten < 1)
    return decide('infra-error', 'the workload wrote nothing to the LUN, so it proves nothing');
  if (work.cycles < expected.cycles)
    return decide('infra-error', `the workload ended after ${work.cycles} of ${expected.cycles} cycles`);
  if (work.mergedTwoSectorWrites < work.cycles * expected.minMergedPerCycle)
    return decide(
      'infra-error',
      `the workload issued ${work.mergedTwoSectorWrites} merged two-sector writes in ${work.cycles} cycles, not ${expected.minMergedPerCycle} a cycle: it did not try the trigger`,
    );
  if (warning) return decide('warned', warning.text);
  return decide(
    'survived',
    `${work.cycles} cycles, ${work.mergedTwoSectorWrites} merged two-sector writes, no crash`,
  );
}

/**
 * First difference between what was asked for and what the guest had, or null. `all`: a fact that was not told is a difference. `told`:
 * only facts that were told count, but which module was loaded must be among them (it is told first): a guest may crash early.
 */
function guestMismatch(guest: GuestFacts, expected: Expected, facts: 'all' | 'told'): string | null {
  const digest = (value: string | undefined): string =>
    value === '1' ? 'CRC32C' : value === '0' ? 'None' : `${value}`;
  const yesNo = (value: string | undefined): string =>
    value === '1' ? 'Yes' : value === '0' ? 'No' : `${value}`;
  const orders = Object.values(guest.slabs).map((slab) => slab.order);
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
    ['hardened_usercopy', told(guest.commandLine, guest.hardenedUsercopy), expected.hardenedUsercopy],
    ['sector size', guest.filesystem.sectorSize, expected.sectorSize],
    ['filesystem block size', guest.filesystem.blockSize, expected.blockSize],
    ['nomerges', guest.block.nomerges, expected.nomerges],
    ['allocation groups', guest.filesystem.allocationGroups, expected.allocationGroups],
    [
      'writeback interval',
      guest.filesystem.writebackCentiseconds,
      expected.writebackCentiseconds ?? guest.filesystem.writebackCentiseconds,
    ],
    [
      'header digest',
      told(guest.iscsi.header_digest, digest(guest.iscsi.header_digest)),
      expected.headerDigest,
    ],
    ['data digest', told(guest.iscsi.data_digest, digest(guest.iscsi.data_digest)), expected.dataDigest],
    [
      'immediate data',
      told(guest.iscsi.immediate_data, yesNo(guest.iscsi.immediate_data)),
      expected.immediateData,
    ],
    [
      'red zones of kmalloc-512',
      guest.slabDebug.redZone ?? (expected.redZone ? null : false),
      expected.redZone,
    ],
    ['target address', guest.iscsi.persistent_address ?? null, expected.targetAddress],
    ['online CPUs', told(guest.cpus.online, countCpus(guest.cpus.online)), expected.onlineCpus],
  ];
  for (const [name, found, wanted] of pairs)
    if (found !== wanted && (facts === 'all' || found !== null))
      return `${name} is ${found ?? 'unknown'}, not ${wanted}`;
  const { slubMinOrder, slubMaxOrder } = expected;
  if (orders.length === 0 && facts === 'told') return null;
  if (slubMinOrder !== null && (orders.length === 0 || Math.min(...orders) < slubMinOrder))
    return `slab order is ${orders.length === 0 ? 'unknown' : Math.min(...orders)}, not at least ${slubMinOrder}`;
  const order = guest.slabs['kmalloc-512']?.order;
  if (slubMaxOrder !== null && (order === undefined || order > slubMaxOrder))
    return `slab order of kmalloc-512 is ${order ?? 'unknown'}, not at most ${slubMaxOrder}`;
  return null;
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
