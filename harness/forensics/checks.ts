import type { Bug } from '../bug/bug.js';
import { transportOf } from '../bug/family.js';
import type { Sought } from '../bug/sought.js';
import { kmallocObjectSize } from '../log/signature.js';
import type { Analysis, AnalysisCheck, AnalysisFacts } from './analysis-schema.js';

const USERCOPY_FUNCTIONS = ['usercopy_abort', '__check_object_size', '__check_heap_object'];

function check(name: string, expected: string, found: string | null, holds: boolean): AnalysisCheck {
  return { name, expected, found: found ?? 'not found', holds };
}

const at = (address: string): bigint => BigInt(`0x${address}`);

/** The steps of the argument that this panic is the sought one, each with what it expects and what the dump shows. */
export function checkFacts(facts: AnalysisFacts, { bug, receiver }: Sought): AnalysisCheck[] {
  const { usercopy, task, skb, socket } = facts;
  const [first, last] = transportOf(bug.transport).ports;
  const ports = first === last ? `${first}` : `${first} to ${last}`;
  const isPort = (port: number): boolean => port >= first && port <= last;
  const inUsercopy =
    facts.panic?.includes('usercopy.c') === true ||
    facts.stack.some((name) => USERCOPY_FUNCTIONS.includes(name));
  return [
    check(
      'panic-line',
      'a usercopy exposure, and the panicked stack in that check',
      usercopy ? `${usercopy.line}${inUsercopy ? '' : ' (but the stack is elsewhere)'}` : facts.panic,
      usercopy?.direction === 'exposure' && inUsercopy,
    ),
    // What the work queue's own task is called varies by CPU: its function is in the stack.
    receiver.workqueue
      ? check(
          'reader',
          receiver.words,
          task &&
            `${task.comm}, with ${facts.stack.includes(receiver.words) ? receiver.words : 'another function'} in its stack`,
          task !== null && receiver.comm.test(task.comm) && facts.stack.includes(receiver.words),
        )
      : check('reader', receiver.words, task?.comm ?? null, task !== null && receiver.comm.test(task.comm)),
    check('stack', bug.readIn, facts.stack.join(' < ') || null, facts.stack.includes(bug.readIn)),
    check(
      'data-is-in-fragments',
      'an sk_buff with a fragment',
      skb && `len ${skb.len}, headlen ${skb.headLen}, ${skb.fragments} fragments`,
      skb !== null && skb.fragments >= 1,
    ),
    ...(bug.copy === 'across-pages' ? crossingChecks(facts) : objectChecks(facts, bug)),
    check(
      'loopback',
      'both ends are this host',
      socket && `${socket.local}:${socket.localPort} and ${socket.remote}:${socket.remotePort}`,
      socket !== null &&
        socket.local !== '0.0.0.0' &&
        (socket.local === socket.remote ||
          (socket.local.startsWith('127.') && socket.remote.startsWith('127.'))),
    ),
    check(
      'target-port',
      `one end is port ${ports}`,
      socket && `${socket.localPort} and ${socket.remotePort}`,
      socket !== null && (isPort(socket.localPort) || isPort(socket.remotePort)),
    ),
    check(
      'module',
      `${bug.module.name} is loaded`,
      facts.module && `${facts.module.name}, srcversion ${facts.module.srcversion ?? 'none'}`,
      facts.module !== null,
    ),
  ];
}

/** Of a copy of neighbouring objects. */
function objectChecks(facts: AnalysisFacts, bug: Bug): AnalysisCheck[] {
  const { usercopy, object, fragment, objects } = facts;
  const size = object ? kmallocObjectSize(object.cache) : null;
  const whole = object && usercopy ? usercopy.length / object.objectSize : 0;
  const magics = objects.map(({ header }) =>
    header ? `${header.magic}${group(header.allocationGroup)}` : 'no header',
  );
  const unknown = objects.some(({ allocated, firstBytes }) => allocated === null || firstBytes === null);
  const inside =
    fragment !== null &&
    object !== null &&
    usercopy !== null &&
    at(object.address) >= at(fragment.address) &&
    at(object.address) + BigInt(usercopy.length) <= at(fragment.address) + BigInt(fragment.size);
  const addressAgrees = usercopy?.address == null || usercopy.address === object?.address;
  const allSame = objects.every((entry) => entry.cache === object?.cache);
  return [
    check(
      'object-is-valid',
      'an allocated object of the kmalloc cache that the kernel named',
      object && `${object.allocated ? 'allocated' : 'free'} object of ${object.cache}`,
      object?.allocated === true && size !== null && object.cache === usercopy?.object,
    ),
    check(
      'address-is-an-object',
      'the copy starts where an object starts',
      object?.base ? `${object.address}, object at ${object.base}` : null,
      object !== null && object.base === object.address && (usercopy?.offset ?? 0) === 0 && addressAgrees,
    ),
    check(
      'length-is-whole-objects',
      'two or more whole objects',
      usercopy && object && `${usercopy.length} bytes = ${whole} × ${object.objectSize}`,
      Number.isInteger(whole) && whole >= 2,
    ),
    check(
      'all-objects-allocated',
      'every object under the copy is an allocated one of the same cache',
      objects.length > 0 && !unknown
        ? objects.map((entry) => `${entry.allocated ? 'allocated' : 'free'} ${entry.cache}`).join(', ')
        : null,
      objects.length === whole && allSame && objects.every((entry) => entry.allocated === true),
    ),
    check(
      'copy-is-in-one-fragment',
      'the whole copy lies in one fragment of the sk_buff',
      fragment &&
        object &&
        usercopy &&
        `${usercopy.length} bytes at ${object.address}; fragment of ${fragment.size} bytes at ${fragment.address}, page ${fragment.page}`,
      inside,
    ),
    ...(facts.sent.length === 0 ? [] : [sentCheck(facts)]),
    ...(bug.payload === 'xfs-headers'
      ? [
          check(
            'objects-are-xfs-metadata',
            'each object begins with an XFS magic number',
            unknown ? null : magics.join(', ') || null,
            objects.length === whole && objects.length >= 2 && objects.every(({ header }) => header !== null),
          ),
        ]
      : []),
  ];
}

/** The calls that sent what was copied: together all of it. Two, if the stack joined them; one, if the block layer had already done so. */
function sentCheck({ object, usercopy, sent }: AnalysisFacts): AnalysisCheck {
  const start = object ? Number(at(object.address) & 0xfffn) : 0;
  const end = start + (usercopy?.length ?? 0);
  const inside = sent.filter(({ offset, size }) => offset < end && offset + size > start);
  let reached = start;
  for (const { offset, size } of [...inside].sort((a, b) => a.offset - b.offset))
    if (offset <= reached) reached = Math.max(reached, offset + size);
  const holds = usercopy !== null && reached >= end;
  return check(
    'sent-by-reference',
    'the calls that handed these objects over to be sent',
    // The trace may have lost one: that refutes nothing.
    holds
      ? inside.map(({ page, offset, size }) => `page ${page}, offset ${offset}, size ${size}`).join('; ')
      : null,
    holds,
  );
}

/** Of a copy across the end of a compound page. */
function crossingChecks({ usercopy, fragment, compound }: AnalysisFacts): AnalysisCheck[] {
  const end = usercopy?.offset == null ? null : usercopy.offset + usercopy.length;
  return [
    check(
      'object-is-a-page',
      'a copy out of a page, at an offset that the kernel tells',
      usercopy && `${usercopy.object}, offset ${usercopy.offset ?? 'not told'}`,
      usercopy?.object === 'page alloc' && usercopy.offset !== null,
    ),
    check(
      'copy-is-in-one-fragment',
      'the whole copy lies in one fragment of the sk_buff, where the kernel says',
      fragment &&
        compound &&
        usercopy &&
        `${usercopy.length} bytes at ${usercopy.offset}; fragment of ${fragment.size} bytes, ${compound.offset} into the compound page ${compound.page}`,
      compound !== null &&
        fragment !== null &&
        usercopy !== null &&
        end !== null &&
        compound.offset <= (usercopy.offset ?? 0) &&
        end <= compound.offset + fragment.size,
    ),
    check(
      'copy-crosses-the-end',
      'it begins in a compound page and ends beyond it',
      compound && end !== null ? `the page has ${compound.bytes} bytes, the copy ends at ${end}` : null,
      compound !== null && end !== null && (usercopy?.offset ?? 0) < compound.bytes && end > compound.bytes,
    ),
    check(
      'next-is-another-page',
      'what lies behind is no part of the same compound page',
      compound && `the page behind is ${compound.next}, of the page ${compound.nextHead}`,
      compound !== null && compound.nextHead !== compound.page,
    ),
  ];
}

const group = (number: number | null): string => (number === null ? '' : ` of AG ${number}`);

/**
 * What the checks add up to. A check that could not be made leaves it unproven; one that found something else refutes it, unless the dump
 * is damaged: then what was found may be wrong too.
 */
export function conclude(
  facts: AnalysisFacts,
  checks: readonly AnalysisCheck[],
  problem: string | null,
  { bug, receiver }: Sought,
): Analysis['conclusion'] {
  const failed = checks.filter((check) => !check.holds);
  const names = failed.map((check) => check.name).join(', ');
  if (failed.length === 0 && problem === null && bug.copy === 'across-pages')
    return {
      sought: 'yes',
      text:
        `This is the sought panic: ${facts.fragment?.size} bytes that span two compound pages were sent as one fragment, and the loopback receiver ${receiver.words} copied ` +
        `${facts.usercopy?.length} of them across the end of the first, which has ${facts.compound?.bytes} bytes.`,
    };
  if (failed.length === 0 && problem === null) {
    const [first, second] = facts.objects.map(({ header }) => header?.magic);
    return {
      sought: 'yes',
      text:
        `This is the sought panic: neither the address nor the length was wrong. ${facts.objects.length} valid neighbouring ${facts.object?.cache} objects ` +
        `(${first}, ${second}${facts.objects.length > 2 ? ', …' : ''}) on a ${facts.object?.pageIs} page were coalesced into one fragment, and the loopback receiver ${facts.task?.comm} read them as one.`,
    };
  }
  const refuted = failed.find((check) => check.found !== 'not found');
  if (refuted && problem === null)
    return {
      sought: 'no',
      text: `This panic is not the sought one: ${refuted.name}: expected ${refuted.expected}, found ${refuted.found} (failed: ${names}).`,
    };
  return {
    sought: 'not-provable',
    text: `This panic is not provably the sought one: ${problem ? `${problem}; ` : ''}${names ? `open: ${names}` : 'every check that could be made holds'}.`,
  };
}
