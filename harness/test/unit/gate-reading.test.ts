import test from 'ava';
import { gateReading } from '../../guest/gate-reading.js';
import { parseLines } from '../../log/log-line.js';

const PROBE = 'function=tcp_sendpage page=64 slab=0:&512 tail=8:&1 head=8:-1';
const told = {
  ...{ probe: PROBE, why: undefined, sectorSize: 512 },
  ...{ copy: 'whole-objects' as const, panicked: null },
};
const work = (counts: Record<string, number>) => ({ cycles: 1, bytesWritten: 4096, counts, perCycle: [] });
const closed = {
  headers: 256,
  leaked: 0,
  leakedheads: 0,
  leakedtails: 0,
  neighbours: 0,
  others: 40,
  gatelost: 0,
};

test('a reading is made of what the cycles counted', (t) => {
  const { gate, gateWhy } = gateReading(
    told,
    work({ ...closed, leaked: 250, leakedheads: 30, leakedtails: 220, neighbours: 7 }),
    [],
  );
  t.is(gateWhy, null);
  t.deepEqual(gate, {
    probe: 'tcp_sendpage',
    marks: 'page=64 slab=0:&512 tail=8:&1 head=8:-1',
    lost: 0,
    slabSegments: 256,
    leaked: 250,
    leakedHead: 30,
    leakedTail: 220,
    neighbours: 7,
    otherSegments: 40,
    cutShort: false,
    joined: [],
  });
});

test('kernels that tell a slab by the page type', (t) => {
  const probe = 'function=skb_splice_from_iter page=64 slab=51:==245 tail=8:&1 head=8:-1';
  const line = (own: number): string =>
    `[    1.000000]  kworker-9  0d..1. 13us : gate: (skb_splice_from_iter+0x0/0x90) page=256 off=0 size=512 own=${own} tb=0 hs=0 hd=0`;
  const { gate } = gateReading(
    { ...told, probe },
    null,
    console('Dumping ftrace buffer:', line(245), line(244)),
  );
  t.like(gate, { probe: 'skb_splice_from_iter', leaked: 1 });
});

test('what a failing cycle was read of more than once is added up, and stays exact', (t) => {
  const rest = ' leaked=0 leakedheads=0 others=5 gatelost=0 leaked=3 leakedheads=1 others=2 gatelost=1';
  t.like(gateReading({ ...told, rest }, work({ ...closed }), []).gate, {
    ...{ leaked: 3, leakedHead: 1, otherSegments: 47, lost: 1, cutShort: true },
  });
  const much = ' leaked=999999999999'.repeat(40);
  t.is(gateReading({ ...told, rest: much }, work({ ...closed }), []).gate?.leaked, 1e12);
});

test('sectors as large as a page lie in no slab', (t) => {
  t.is(gateReading({ ...told, sectorSize: 4096 }, work(closed), []).gate?.slabSegments, 0);
});

test('where there is no reading it is said why', (t) => {
  t.deepEqual(gateReading({ ...told, probe: undefined, why: 'no kprobes' }, work({}), []), {
    gate: null,
    gateWhy: 'no kprobes',
  });
  t.deepEqual(gateReading({ ...told, probe: undefined }, work({}), []), {
    gate: null,
    gateWhy: 'the guest set no probe',
  });
  t.deepEqual(gateReading(told, work({ merged: 2 }), []), {
    gate: null,
    gateWhy: 'no cycle ended, and the kernel printed no trace',
  });
  t.regex(gateReading({ ...told, probe: 'tcp_sendpage' }, work(closed), []).gateWhy ?? '', /cannot be read/);
});

test('a cycle in which a step failed counts as far as it came', (t) => {
  const rest = 'leaked=12 leakedheads=2 leakedtails=10 neighbours=1 others=3 gatelost=0';
  t.like(gateReading({ ...told, rest }, work({}), []).gate, {
    leaked: 12,
    leakedTail: 10,
    slabSegments: 12,
    cutShort: true,
  });
  t.like(gateReading({ ...told, rest }, work({ ...closed, leaked: 1 }), []).gate, {
    leaked: 13,
    otherSegments: 43,
    slabSegments: 256,
  });
});

test('of pieces across pages a panic shows one, and cycles count the rest', (t) => {
  const across = { ...told, copy: 'across-pages' as const };
  t.is(gateReading(across, work({}), []).gate, null);
  t.like(gateReading({ ...across, panicked: 8192 }, work({}), []).gate, { leaked: 1, cutShort: true });
  t.like(gateReading(across, work({ ...closed, folios: 4096, leaked: 3 }), []).gate, {
    leaked: 3,
    slabSegments: 4096,
  });
  t.like(gateReading(across, work({ ...closed, spans: 62 }), []).gate, { leaked: 0, slabSegments: 62 });
});

const call = (page: string, off: number, size: number, tb: string, own = 512): string =>
  `[   13.100000]   kworker-9  0d..1. 13000us : gate: (tcp_sendpage+0x0/0x90) page=${page} off=${off} size=${size} own=${own} tb=${tb} hs=512 hd=${tb}`;
const console = (...lines: string[]) => parseLines(`${lines.join('\n')}\n`);

test('a panicked kernel prints the calls since the last cycle, and which were sent as one', (t) => {
  const { gate } = gateReading(
    told,
    work({ ...closed, leaked: 10, leakedheads: 4, leakedtails: 6 }),
    console(
      call('18446719884455411712', 0, 512, '1'),
      '[   13.000000] Dumping ftrace buffer:',
      '[   13.000000] ---------------------------------',
      call('18446719884455411712', 1024, 512, '0'),
      call('0xffffea0000220000', 1536, 512, '18446719884455411713'),
      call('18446719884455411712', 61, 61, '0'),
      call('18446719884455411712', 2048, 512, '18446719884455411713', 0),
      // Of no slab.
      call('18446719884455411712', 2560, 512, '0', 4),
      '[   13.000000] Dumping ftrace buffer:',
    ),
  );
  t.like(gate, {
    leaked: 13,
    leakedHead: 5,
    leakedTail: 8,
    neighbours: 0,
    cutShort: true,
    slabSegments: 259,
  });
  const joined = gateReading(
    told,
    null,
    console('Dumping ftrace buffer:', call('256', 1024, 512, '0'), call('256', 1536, 512, '0')),
  );
  t.deepEqual(joined.gate?.joined, [
    { page: '0x100', offset: 1024, size: 512 },
    { page: '0x100', offset: 1536, size: 512 },
  ]);
  t.is(joined.gate?.neighbours, 1);
  // One call that held both.
  const whole = gateReading(
    { ...told, panicked: 1024 },
    null,
    console(
      ...['Dumping ftrace buffer:', call('256', 1024, 512, '0'), call('256', 1536, 512, '0')],
      ...[call('512', 0, 1024, '0'), call('256', 0, 512, '0')],
    ),
  );
  t.deepEqual(whole.gate?.joined, [{ page: '0x200', offset: 0, size: 1024 }]);
});
