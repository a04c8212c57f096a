import type { SoughtCopy } from '../bug/bug.js';
import { bugOf } from '../bug/family.js';
import type { TrialOutcome } from '../outcome/outcome-schema.js';

/** The gate's readings of a cell's trials, added up: of those alone that lost nothing. */
export interface GateSum {
  boots: number;
  /** The probed function. */
  probe: string;
  /** What it learned of the kernel; null: not the same in all boots. */
  marks: string | null;
  /** What a leak is. */
  copy: SoughtCopy;
  slabSegments: number;
  leaked: number;
  leakedHead: number;
  leakedTail: number;
  neighbours: number;
  otherSegments: number;
  /** Some were cut short by a panic: what was sent in all is not known. */
  cutShort: boolean;
  /** Of kmalloc-512; with one, there are no tail pages. Null: unknown, or not the same in all boots. */
  pagesPerSlab: number | null;
}

/** Fewer slab segments than this show nothing: one page in eight is a head page, and none of 64 would be one in 5,000 such readings. */
export const LEAST_SEGMENTS = 64;

/**
 * Slab segments, for each page of a slab, of which some are sure to have lain in its head page and some in its tail pages: objects are handed
 * out from all over a slab, and none of 256 in one page of eight would be one in 10^14 such readings.
 */
const SURE_OF_EACH_PAGE = 32;

type Read = Pick<TrialOutcome, 'gate' | 'guest' | 'bug'>;

/** True of a trial whose reading is whole. */
export function isRead({ gate }: Pick<TrialOutcome, 'gate'>): boolean {
  return gate?.lost === 0;
}

/** Null if no trial has a whole reading. */
export function sumReadings(trials: readonly Read[]): GateSum | null {
  const read = trials.filter(isRead);
  const [first] = read;
  if (!first?.gate) return null;
  const sum: GateSum = {
    boots: 0,
    probe: first.gate.probe,
    marks: first.gate.marks,
    copy: bugOf(first.bug).copy,
    slabSegments: 0,
    leaked: 0,
    leakedHead: 0,
    leakedTail: 0,
    neighbours: 0,
    otherSegments: 0,
    cutShort: false,
    pagesPerSlab: null,
  };
  const orders = new Set<number>();
  for (const { gate, guest } of read) {
    if (!gate) continue;
    sum.boots++;
    for (const key of COUNTS) sum[key] += gate[key];
    sum.cutShort ||= gate.cutShort;
    if (gate.marks !== sum.marks) sum.marks = null;
    const order = guest?.slabs['kmalloc-512']?.order;
    if (order !== undefined) orders.add(2 ** order);
  }
  const [pages] = orders;
  return { ...sum, pagesPerSlab: orders.size === 1 && pages !== undefined ? pages : null };
}

const COUNTS = ['slabSegments', 'leaked', 'leakedHead', 'leakedTail', 'neighbours', 'otherSegments'] as const;

/** What a control's reading lacks to show that an open gate lets slab pages through here, or null. */
export function controlLacks(control: GateSum | null): string | null {
  if (control === null) return 'its positive control has no reading';
  return control.leaked === 0 ? "nothing went through its positive control's gate" : null;
}

/**
 * What the readings of a cell's survivors lack to show that its gate is closed, beside its control's; null if they are proof. One must be
 * whole, and none may have seen a leak. Slab pages of every kind must have been sent: the control showed that they are, or there were so
 * many that some were.
 */
export function readingLacks(survivors: readonly Read[], control: GateSum | null): string | null {
  const reading = sumReadings(survivors);
  if (reading === null) return 'a boot that survived has no whole reading';
  if (survivors.some(({ gate }) => (gate?.leaked ?? 0) > 0)) return 'its gate leaked';
  const lacking = controlLacks(control);
  if (control === null || lacking !== null) return lacking;
  const { slabSegments, pagesPerSlab, marks, copy } = reading;
  if (marks === null || marks !== control.marks)
    return "its probe took other pages for slab pages than its positive control's";
  if (slabSegments < LEAST_SEGMENTS)
    return copy === 'across-pages'
      ? `there were only ${count(slabSegments)} occasions`
      : `only ${count(slabSegments)} slab segments were sent`;
  if (copy === 'across-pages') return null;
  if (pagesPerSlab !== null && pagesPerSlab !== control.pagesPerSlab)
    return 'its slabs are others than those of its positive control';
  if (pagesPerSlab === 1 || (pagesPerSlab !== null && slabSegments >= SURE_OF_EACH_PAGE * pagesPerSlab))
    return null;
  const unseen = [
    ...(control.leakedHead === 0 ? ['head pages'] : []),
    ...(control.leakedTail === 0 ? ['tail pages'] : []),
  ];
  return unseen.length === 0
    ? null
    : `whether ${unseen.join(' and ')} were among its ${count(slabSegments)} slab segments is not known`;
}

/** What kind of gate it is, by what went through it; null if too little did to tell. */
export function gateKind({
  leaked,
  leakedHead,
  leakedTail,
  pagesPerSlab,
  otherSegments,
  cutShort,
  slabSegments,
  copy,
}: GateSum): string | null {
  if (leaked > 0) {
    if (copy === 'across-pages') return 'it sends pieces across the ends of compound pages';
    if (leakedHead > 0 && (leakedTail > 0 || pagesPerSlab === 1)) return 'its gate is open';
    if (leaked < LEAST_SEGMENTS) return null;
    return leakedHead === 0
      ? "its gate looks at a page's own slab flag alone: head pages are held back, tail pages pass"
      : 'its gate holds tail pages back, and head pages pass';
  }
  if (cutShort || slabSegments < LEAST_SEGMENTS) return null;
  if (otherSegments === 0) return COPIES_ALL;
  return copy === 'across-pages'
    ? 'nothing that it sends leaves its compound page'
    : 'its gate holds slab pages back, and lets others pass';
}

/** Of a sender that sends no page by reference: it cannot leak, and is slower. */
export const COPIES_ALL = 'it sends everything by copy';

/** What a reading says, for people: `1,523 of 1,537 slab segments in 1 boot reached tcp_sendpage (88 in head pages, 1,435 in tail pages)`. */
export function readingText(sum: GateSum): string {
  const { slabSegments, leaked, otherSegments, probe, boots, cutShort, copy } = sum;
  const where = `in ${boots} ${boots === 1 ? 'boot' : 'boots'}`;
  const others = `${count(otherSegments)} other segments did`;
  if (copy === 'across-pages')
    return leaked === 0
      ? `on ${count(slabSegments)} occasions ${where} (pages of large folios that were written, or writes across two huge pages), no piece of two compound pages reached ${probe} (${others})`
      : `${cutShort ? 'at least ' : ''}${count(leaked)} ${leaked === 1 ? 'piece' : 'pieces'} of two compound pages reached ${probe} ${where}`;
  if (leaked === 0)
    return slabSegments === 0
      ? `no slab segment was sent ${where}, so none could reach ${probe} (${others})`
      : `none of ${count(slabSegments)} slab segments ${where} reached ${probe} (${others})`;
  return cutShort
    ? `${count(leaked)} slab segments reached ${probe} ${where} (${kindsText(sum)})`
    : `${count(leaked)} of ${count(Math.max(slabSegments, leaked))} slab segments ${where} reached ${probe} (${kindsText(sum)})`;
}

/** What leaked: `173 (21 in head pages, 152 in tail pages)`. */
export function leakText(sum: GateSum): string {
  if (sum.copy === 'across-pages') return `${sum.cutShort ? 'at least ' : ''}${count(sum.leaked)}`;
  return `${count(sum.leaked)} (${kindsText(sum)})`;
}

const kindsText = ({ leakedHead, leakedTail }: GateSum): string =>
  `${count(leakedHead)} in head pages, ${count(leakedTail)} in tail pages`;

/** A number with thousands apart, as people read it: `1,537`. */
export const count = (number: number): string => number.toLocaleString('en-US');

/**
 * Which link of the chain was missing where the gate leaked and nothing panicked, by what was read back from the guest of a trial; luck, if
 * none was.
 */
export function missingLink({
  gate,
  guest,
  outcome,
  bug,
}: Pick<TrialOutcome, 'gate' | 'guest' | 'outcome' | 'bug'>): string {
  const address = guest?.transport.targetAddress;
  if (outcome === 'warned') return 'something else stopped it first';
  if (address !== undefined && !address.startsWith('127.'))
    return 'the target is on another host, whose copies are of pages of its own';
  if (guest?.hardenedUsercopy === 'off' || guest?.hardenedUsercopy === 'absent')
    return 'the kernel does not check copies (hardened_usercopy)';
  if (guest?.slabDebug.redZone === true) return 'red zones lie between the objects of a slab';
  if (guest?.block.nomerges === 2) return 'the block layer merged no requests (nomerges)';
  if (bugOf(bug).copy === 'across-pages')
    return 'the receiver read none of them across such an end, or its kernel does not look there';
  return gate?.neighbours === 0
    ? 'no two that were neighbours in memory were sent one after the other'
    : 'those that were neighbours were not read as one';
}
