import { kmallocObjectSize } from '../outcome/signature.js';
import type { Analysis, AnalysisCheck, AnalysisFacts } from './analysis-schema.js';

const TARGET_PORT = 3260;

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
  const magics = objects.map(({ header }) =>
    header
      ? `${header.magic}${header.allocationGroup === null ? '' : ` of AG ${header.allocationGroup}`}`
      : 'no header',
  );
  return [
    check(
      'panic-line',
      'a usercopy exposure',
      usercopy?.line ?? facts.panic,
      usercopy?.direction === 'exposure',
    ),
    check('reader', receiver, task?.comm ?? null, task?.comm === receiver),
    check('stack', 'tcp_recvmsg', facts.stack.join(' < ') || null, facts.stack.includes('tcp_recvmsg')),
    check(
      'object-is-valid',
      'an allocated object of a kmalloc cache',
      object && `${object.allocated ? 'allocated' : 'free'} object of ${object.cache}`,
      object?.allocated === true && size !== null,
    ),
    check(
      'length-is-whole-objects',
      'two or more whole objects',
      usercopy && object && `${usercopy.length} bytes = ${whole} × ${object.objectSize}`,
      Number.isInteger(whole) && whole >= 2,
    ),
    check(
      'all-objects-allocated',
      'every object under the copy is allocated',
      objects.length > 0 ? objects.map((entry) => (entry.allocated ? 'allocated' : 'free')).join(', ') : null,
      objects.length >= 2 && objects.every((entry) => entry.allocated),
    ),
    check(
      'data-is-in-fragments',
      'an sk_buff with a fragment',
      skb && `len ${skb.len}, headlen ${skb.headLen}, ${skb.fragments} fragments`,
      skb !== null && skb.fragments >= 1,
    ),
    check(
      'fragment-is-the-object',
      "a fragment whose first byte is the object's",
      fragment &&
        object &&
        `fragment ${fragment.address} on page ${fragment.page}; object ${object.address} on page ${object.page}`,
      fragment !== null &&
        object !== null &&
        fragment.page === object.page &&
        fragment.address === object.address,
    ),
    check(
      'fragment-covers-the-copy',
      'fragment at least as long as the copy',
      fragment && usercopy && `${fragment.size} for ${usercopy.length} bytes`,
      fragment !== null && usercopy !== null && fragment.size >= usercopy.length,
    ),
    check(
      'objects-are-xfs-metadata',
      'each object begins with an XFS magic number',
      magics.join(', ') || null,
      objects.length >= 2 && objects.every(({ header }) => header !== null),
    ),
    check(
      'loopback',
      'both ends are this host',
      socket && `${socket.local}:${socket.localPort} and ${socket.remote}:${socket.remotePort}`,
      socket !== null &&
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

/** What the checks add up to. A check that could not be made leaves it unproven; one that found something else refutes it. */
export function conclude(
  facts: AnalysisFacts,
  checks: readonly AnalysisCheck[],
  problem: string | null,
): Analysis['conclusion'] {
  const failed = checks.filter((check) => !check.holds);
  const names = failed.map((check) => check.name).join(', ');
  if (failed.length === 0) {
    const [first, second] = facts.objects.map(({ header }) => header?.magic);
    return {
      sought: 'yes',
      text:
        `This is the sought panic: neither the address nor the length was wrong. ${facts.objects.length} valid neighbouring ${facts.object?.cache} objects ` +
        `(${first}, ${second}${facts.objects.length > 2 ? ', …' : ''}) on a ${facts.object?.pageIs} page were coalesced into one fragment, and the loopback receiver ${facts.task?.comm} read them as one.`,
    };
  }
  const refuted = failed.find((check) => check.found !== 'not found');
  if (refuted)
    return {
      sought: 'no',
      text: `This panic is not the sought one: ${refuted.name}: expected ${refuted.expected}, found ${refuted.found} (failed: ${names}).`,
    };
  return {
    sought: 'not-provable',
    text: `This panic is not provably the sought one: ${problem ? `${problem}; ` : ''}nothing was found for ${names}.`,
  };
}
