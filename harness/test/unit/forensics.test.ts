import test from 'ava';
import { soughtIn } from '../../bug/sought.js';
import type { AnalysisFacts } from '../../forensics/analysis-schema.js';
import { checkFacts, conclude } from '../../forensics/checks.js';
import {
  parseBacktrace,
  parseBytes,
  parseFragments,
  parseKmem,
  parseLabelledWords,
  parseMembers,
  parseValue,
} from '../../forensics/crash-output.js';
import { callsWith, noFacts } from '../../forensics/walk.js';
import { xfsHeader } from '../../forensics/xfs-magic.js';

// Answers of crash on two kernels: 3.10.0-957.27.2.el7 (as the report of the panic shows them) and Debian 6.1.192.
const EL7_KMEM = `CACHE            NAME                 OBJSIZE  ALLOCATED     TOTAL  SLABS  SSIZE
ffff9ca27fc07600 kmalloc-512              512     242454    464512   7258    32k
  SLAB              MEMORY            NODE  TOTAL  ALLOCATED  FREE
  fffff597a42fdc00  ffff9cba0bf70000     1     64         59     5
  FREE / [ALLOCATED]
  [ffff9cba0bf75400]

      PAGE         PHYSICAL      MAPPING       INDEX CNT FLAGS
fffff597a42fdd40 190bf75000                0        0  0 6fffff00008000 tail
`;
const DEBIAN_KMEM = `CACHE             OBJSIZE  ALLOCATED     TOTAL  SLABS  SSIZE  NAME
ffff888004848a00      512       1232      2112     33    32k  kmalloc-512
  SLAB              MEMORY            NODE  TOTAL  ALLOCATED  FREE
  ffffea000021fc00  ffff8880087f0000     0     64         64     0
  FREE / [ALLOCATED]
   ffff8880087f0a00  (cpu 0 cache)

      PAGE       PHYSICAL      MAPPING       INDEX CNT FLAGS
ffffea000021fc00  87f0000        800000000        0  0 fffffc0000000
`;

test('kmem, with its columns in either order', (t) => {
  t.deepEqual(parseKmem(EL7_KMEM), {
    cache: 'kmalloc-512',
    objectSize: 512,
    slabSize: '32k',
    headPage: 'fffff597a42fdc00',
    base: 'ffff9cba0bf75400',
    allocated: true,
    page: 'fffff597a42fdd40',
    physical: '190bf75000',
  });
  t.like(parseKmem(DEBIAN_KMEM), {
    cache: 'kmalloc-512',
    objectSize: 512,
    allocated: false,
    page: 'ffffea000021fc00',
  });
  t.is(parseKmem('kmem: address not found in any slab\n'), null);
});

test('fragments of 3.10 and of kernels since 5.4', (t) => {
  const old = `struct skb_shared_info {
  frags = {{
      page = {
        p = 0xfffff597a42fdd40
      }, 
      page_offset = 1024, 
      size = 1024
    }, {
      page = {
        p = 0x0
      }, 
      page_offset = 0, 
      size = 0
    }`;
  t.deepEqual(parseFragments(old, 1), [{ page: '0xfffff597a42fdd40', offset: 1024, size: 1024 }]);
  const now = `  frags = {{
      bv_page = 0xffffea0000fe93c0,
      bv_len = 1024,
      bv_offset = 3072
    }, {`;
  t.deepEqual(parseFragments(now, 17), [{ page: '0xffffea0000fe93c0', offset: 3072, size: 1024 }]);
});

test('backtrace, labelled words, members, values', (t) => {
  const bt = `PID: 102      TASK: ffff8880062dc200  CPU: 0    COMMAND: "tgtd"
 #7 [ffffc900005cb8b8] simple_copy_to_iter at ffffffff817c7995
 #8 [ffffc900005cb8d8] __skb_datagram_iter at ffffffff817c7b36
    ffffc900005cb8e0: ffffc900005cbab8 [ffff888005209ae8:skbuff_fclone_cache] 
    ffffc900005cb8f0: 0000000000000000 [ffff8880087f1a00:kmalloc-512]
`;
  t.deepEqual(parseBacktrace(bt), {
    pid: 102,
    task: 'ffff8880062dc200',
    cpu: 0,
    comm: 'tgtd',
    stack: ['simple_copy_to_iter', '__skb_datagram_iter'],
  });
  t.deepEqual(parseLabelledWords(bt), [
    { frame: '__skb_datagram_iter', address: 'ffff888005209ae8', cache: 'skbuff_fclone_cache' },
    { frame: '__skb_datagram_iter', address: 'ffff8880087f1a00', cache: 'kmalloc-512' },
  ]);
  t.deepEqual(
    parseMembers('  len = 1024,\n  data_len = 1024,\n  head = 0xffff888008db8c00 "",\n  end = 704\n'),
    {
      len: '1024',
      data_len: '1024',
      head: '0xffff888008db8c00 ""',
      end: '704',
    },
  );
  t.is(parseValue('$1 = 16777343\n'), 16777343);
  t.is(parseValue('$1 = 0xbb0\n'), 0xbb0);
  t.is(parseValue('p: gdb request failed\n'), null);
});

test('XFS headers: magic, allocation group and length, big-endian', (t) => {
  const bytes = parseBytes(
    'ffff88803fa4fc00:  58 41 47 46 00 00 00 01 00 00 00 23 00 00 80 00   XAGF.......#....\n',
  );
  t.like(xfsHeader(bytes), { magic: 'XAGF', allocationGroup: 35, length: 32768 });
  t.is(xfsHeader(Buffer.from('nothing of the sort.')), null);
  t.is(xfsHeader(Buffer.from('XAGF')), null);
});

const proven = (): AnalysisFacts => {
  const header = (magic: string) => ({ magic, meaning: magic, allocationGroup: 3, length: 9 });
  const object = (address: string, magic: string) => ({
    ...{ address, cache: 'kmalloc-512', allocated: true, firstBytes: '' },
    header: header(magic),
  });
  return {
    ...noFacts(),
    usercopy: {
      ...{ line: 'usercopy: …', object: 'kmalloc-512', length: 1024, direction: 'exposure' },
      ...{ offset: 0, address: null },
    },
    task: { comm: 'tgtd', pid: 1, cpu: 0, address: 'f' },
    stack: ['__check_object_size', 'tcp_recvmsg'],
    object: {
      ...{
        address: 'a000',
        base: 'a000',
        cache: 'kmalloc-512',
        objectSize: 512,
        slabSize: '32k',
        allocated: true,
      },
      ...{ page: 'p1', headPage: 'p0', pageIs: 'tail' },
    },
    skb: {
      ...{ address: 's', cache: 'skbuff_fclone_cache', frame: 'f', len: 1024, dataLen: 1024, headLen: 0 },
      ...{ head: 'h', end: 704, sharedInfo: 'i', fragments: 1, sock: 'k' },
    },
    fragment: { index: 0, page: 'p1', offset: 0, size: 1024, address: 'a000' },
    objects: [object('a000', 'XAGF'), object('a200', 'XAGI')],
    socket: { local: '127.0.0.1', localPort: 3260, remote: '127.0.0.1', remotePort: 40000 },
    module: { name: 'libiscsi_tcp', address: 'm', size: 1, srcversion: null },
  };
};
test('the calls that sent the objects, from the trace that the kernel printed', (t) => {
  const line = (page: string, off: number): string =>
    `[   13.100000] kworker-9  0d..1. 13us : gate: (tcp_sendpage+0x0/0x90) page=${page} off=${off} size=512 own=512 tb=0 hs=0 hd=0`;
  const log = [line('40961', 0), line('40960', 0), 'usercopy: …', line('0xa000', 512)].join('\n');
  const calls = callsWith(log, 'a000');
  t.deepEqual(
    calls.map(({ offset }) => offset),
    [0, 512],
  );
  const facts = (sent: AnalysisFacts['sent']): AnalysisFacts => {
    const { object } = proven();
    return { ...proven(), object: object && { ...object, page: 'a000' }, sent };
  };
  t.is(sought(facts(calls)), 'yes');
  const { found } = checkFacts(facts(calls), SOUGHT).find(({ name }) => name === 'sent-by-reference') ?? {};
  t.is(found, 'page 000000000000a000, offset 0, size 512; page 000000000000a000, offset 512, size 512');
  // What is not all of it proves nothing; no trace asks for nothing. The block layer may have joined them before.
  t.is(sought(facts(calls.slice(1))), 'not-provable');
  t.is(sought(facts([{ page: 'a000', offset: 0, size: 1024 }])), 'yes');
  t.is(sought(facts([])), 'yes');
});

const SOUGHT = soughtIn({ bug: 'iscsi-slab' });
const sought = (facts: AnalysisFacts, problem: string | null = null) =>
  conclude(facts, checkFacts(facts, SOUGHT), problem, SOUGHT).sought;

test('the conclusion is computed from the checks', (t) => {
  t.is(sought(proven()), 'yes');
  t.is(
    sought({
      ...proven(),
      socket: { local: '10.0.0.1', localPort: 3260, remote: '10.0.0.2', remotePort: 9 },
    }),
    'no',
  );
  t.is(
    sought({
      ...proven(),
      socket: { local: '127.0.0.1', localPort: 80, remote: '127.0.0.1', remotePort: 9 },
    }),
    'no',
  );
  t.is(sought({ ...proven(), stack: ['unix_dgram_recvmsg'] }), 'no');
  const [first] = proven().objects;
  if (!first) throw new Error('no object');
  t.is(sought({ ...proven(), objects: [first, { ...first, header: null }] }), 'no');
  t.is(sought({ ...proven(), objects: [first, { ...first, allocated: false }] }), 'no');
  t.is(
    sought({ ...proven(), fragment: { index: 0, page: 'p2', offset: 0, size: 1024, address: 'a900' } }),
    'no',
  );
  t.is(sought({ ...proven(), objects: [first] }), 'no', 'as many objects as the copy spans');
  t.is(sought({ ...proven(), objects: [first, { ...first, cache: 'dentry' }] }), 'no');
  t.is(sought({ ...proven(), stack: ['tcp_recvmsg'] }), 'no', 'the panicked stack must be in the check');
  const { object, usercopy } = proven();
  t.is(
    sought({ ...proven(), object: object && { ...object, address: 'a200' } }),
    'no',
    'the copy must start an object',
  );
  t.is(sought({ ...proven(), usercopy: usercopy && { ...usercopy, offset: 64 } }), 'no');
  t.is(sought({ ...proven(), usercopy: usercopy && { ...usercopy, address: 'b000' } }), 'no');
  t.is(sought({ ...proven(), usercopy: usercopy && { ...usercopy, object: 'kmalloc-1k' } }), 'no');
  t.is(
    sought({ ...proven(), socket: { local: '0.0.0.0', localPort: 3260, remote: '0.0.0.0', remotePort: 9 } }),
    'no',
  );
  const { task } = proven();
  t.is(sought({ ...proven(), task: task && { ...task, comm: 'dhclient' } }), 'no');
});

test('what was not found proves nothing, and is not a refutation', (t) => {
  t.is(sought(noFacts(), 'crash ended'), 'not-provable');
  t.is(sought({ ...proven(), socket: null }), 'not-provable');
  t.is(sought({ ...proven(), skb: null, fragment: null }), 'not-provable');
  const [one, two] = proven().objects;
  if (!one || !two) throw new Error('no objects');
  t.is(sought({ ...proven(), objects: [one, { ...two, header: null, firstBytes: null }] }), 'not-provable');
  t.is(sought({ ...proven(), objects: [one, { ...two, allocated: null }] }), 'not-provable');
  t.is(sought(proven(), 'the dump is damaged'), 'not-provable', 'a damaged dump proves nothing');
  t.is(sought({ ...proven(), stack: ['x'] }, 'the dump is damaged'), 'not-provable', 'and refutes nothing');
});
