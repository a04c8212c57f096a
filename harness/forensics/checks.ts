import { kmallocObjectSize } from '../outcome/signature.js';
import type { Analysis, AnalysisCheck, AnalysisFacts } from './analysis-schema.js';

const TARGET_PORT = 3260;
const USERCOPY_FUNCTIONS = ['usercopy_abort', '__check_object_size', '__check_heap_object'];

/** The steps of the argument that this panic is the sought one, each with what it expects and what the dump shows. */
export function checkFacts(facts: AnalysisFacts, receiver: string): AnalysisCheck[] {
  const { usercopy, task, object, skb, fragment, objects, socket } = facts;
  const check = (name: string, expected: string, found: string | null, holds: boolean): AnalysisCheck => ({
    name,
    expected,
    found: found ?? 'not found',
    holds,
  });
  const size = object ? kmallocObjectSize(object.cache) : null;
  const whole = object && usercopy ? usercopy.length / object.objectSize : 0;
  const at = (address: string): bigint => BigInt(`0x${address}`);
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
  const inUsercopy =
    facts.panic?.includes('usercopy.c') === true ||
    facts.stack.some((name) => USERCOPY_FUNCTIONS.includes(name));
  const allSame = objects.every((entry) => entry.cache === object?.cache);
  return [
    check(
      'panic-line',
      'a usercopy exposure, and the panicked stack in that check',
      usercopy ? `${usercopy.line}${inUsercopy ? '' : ' (but the stack is elsewhere)'}` : facts.panic,
      usercopy?.direction === 'exposure' && inUsercopy,
    ),
    check('reader', receiver, task?.comm ?? null, task?.comm === receiver),
    check('stack', 'tcp_recvmsg', facts.stack.join(' < ') || null, facts.stack.includes('tcp_recvmsg')),
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
      'data-is-in-fragments',
      'an sk_buff with a fragment',
      skb && `len ${skb.len}, headlen ${skb.headLen}, ${skb.fragments} fragments`,
      skb !== null && skb.fragments >= 1,
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
    check(
      'objects-are-xfs-metadata',
      'each object begins with an XFS magic number',
      unknown ? null : magics.join(', ') || null,
      objects.length === whole && objects.length >= 2 && objects.every(({ header }) => header !== null),
    ),
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
      `one end is port ${TARGET_PORT}`,
      socket && `${socket.localPort} and ${socket.remotePort}`,
      socket !== null && (socket.localPort === TARGET_PORT || socket.remotePort === TARGET_PORT),
    ),
    check(
      'module',
      'libiscsi_tcp is loaded',
      facts.module && `libiscsi_tcp, srcversion ${facts.module.srcversion ?? 'none'}`,
      facts.module !== null,
    ),
  ];
}

const group = (number: number | null): string => (number === null ? '' : ` of AG ${number}`);

/**
 * What the checks add up to. A check that could not be made leaves it unproven; one that found something else refutes it, unless the dump is
 * damaged: then what was found may be wrong too.
 */
export function conclude(
  facts: AnalysisFacts,
  checks: readonly AnalysisCheck[],
  problem: string | null,
): Analysis['conclusion'] {
  const failed = checks.filter((check) => !check.holds);
  const names = failed.map((check) => check.name).join(', ');
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
