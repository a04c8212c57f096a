import { InfraError } from '../base/errors.js';
import type { Bug } from '../bug/bug.js';
import { transportOf } from '../bug/family.js';
import { recordedCall } from '../guest/gate-reading.js';
import { usercopyMessage } from '../log/crash-report.js';
import type { AnalysisFacts } from './analysis-schema.js';
import {
  type Fragment,
  type LabelledWord,
  parseAddresses,
  parseBacktrace,
  parseBytes,
  parseFragments,
  parseKmem,
  parseLabelledWords,
  parseMembers,
  parseValue,
} from './crash-output.js';
import type { CrashSession } from './crash-session.js';
import { xfsHeader } from './xfs-magic.js';

export const noFacts = (): AnalysisFacts => ({
  kernel: null,
  panic: null,
  usercopy: null,
  task: null,
  stack: [],
  object: null,
  skb: null,
  fragment: null,
  compound: null,
  sent: [],
  objects: [],
  socket: null,
  processes: null,
  module: null,
});

const hex = (value: bigint): string => value.toString(16).padStart(16, '0');
const MAX_OBJECTS = 64;

/**
 * The article's walk: from the panicked stack to the sk_buff, its fragment, the slab objects under it, and the socket it came through.
 * Fills `facts` as it goes, so that what was found before a failure is kept. All types and offsets come from the dump's own debug info.
 */
export async function walk(session: CrashSession, facts: AnalysisFacts, bug: Bug): Promise<void> {
  const sys = await session.run('sys');
  facts.kernel = /RELEASE: (.*)/.exec(sys)?.[1]?.trim() ?? null;
  facts.panic = /PANIC: "(.*)"/.exec(sys)?.[1]?.trim() ?? null;
  const log = await session.run('log');
  facts.usercopy = usercopyLine(log);
  const backtrace = parseBacktrace(await session.run('bt'));
  if (backtrace) {
    const { stack, task, ...who } = backtrace;
    facts.task = { ...who, address: task };
    facts.stack = stack;
  }
  facts.module = await loadedModule(session, bug.module.name);
  facts.processes = await processes(session, facts, transportOf(bug.transport).sender.comm);
  const words = parseLabelledWords(await session.run('bt -FF'));
  if (bug.copy === 'across-pages') await findCrossing(session, words, facts);
  else {
    await findCopy(session, words, facts);
    await readObjects(session, facts);
    if (facts.object) facts.sent = callsWith(log, facts.object.page);
  }
  // Only of the sk_buff that holds the copy: another one that lay on the stack may be long freed, and its socket with it.
  if (facts.skb && facts.fragment) facts.socket = await socket(session, facts.skb.sock);
  if (session.damage !== null) throw new InfraError('dump-damaged', `the dump is damaged: ${session.damage}`);
}

/**
 * Calls that sent parts of a page, in order, as a panicking kernel printed its trace (ftrace_dump_on_oops): the last of them. `page` is the
 * address of its struct page.
 */
export function callsWith(log: string, page: string): AnalysisFacts['sent'] {
  const wanted = BigInt(`0x${page}`);
  return log
    .split('\n')
    .flatMap((line) => recordedCall(line) ?? [])
    .filter((call) => call.page === wanted)
    .slice(-MOST_CALLS)
    .map(({ offset, size }) => ({ page: hex(wanted), offset, size }));
}

const MOST_CALLS = 16;

function usercopyLine(log: string): AnalysisFacts['usercopy'] {
  // Last one: a log may hold older, survived messages of another kind.
  const line = log.split('\n').findLast((text) => /usercopy: kernel memory/i.test(text));
  if (!line) return null;
  // Read as the outcome's classifier reads it.
  const message = usercopyMessage(line);
  if (!message) return null;
  const { object, length, direction, offset = null, address = null } = message;
  const text = line.replace(/^\[\s*[\d.]+\] /, '').trim();
  return { line: text, object, length, direction, offset, address };
}

async function loadedModule(session: CrashSession, name: string): Promise<AnalysisFacts['module']> {
  const list = await session.run('mod');
  const row = new RegExp(`^([0-9a-f]{16})\\s+${name}\\s+(?:[0-9a-f]{16}\\s+)?(\\d+)`, 'm').exec(list);
  if (!row?.[1]) return null;
  const members = parseMembers(await session.run(`struct module.srcversion ${row[1]}`));
  const srcversion = /"(\w+)"/.exec(members.srcversion ?? '')?.[1] ?? null;
  return { name, address: row[1], size: Number(row[2]), srcversion };
}

async function processes(
  session: CrashSession,
  facts: AnalysisFacts,
  sender: RegExp,
): Promise<AnalysisFacts['processes']> {
  const receiver = facts.task ? { comm: facts.task.comm, pid: facts.task.pid } : null;
  // Along the task list itself: crash 8.0's `ps` relies on the pid hash, which it cannot read on some kernels. Newest first, reading
  // names straight from memory: having gdb format a task_struct takes a fifth of a second each.
  const tasks = parseAddresses(await session.run('list -h init_task -o task_struct.tasks'));
  const offset = parseValue(await session.run('p (unsigned long)&((struct task_struct *)0)->comm'));
  if (offset === null) return { receiver, initiator: null };
  for (const address of tasks.reverse()) {
    const at = hex(BigInt(`0x${address}`) + BigInt(offset));
    const bytes = parseBytes(await session.run(`rd -8 ${at} 16`));
    const comm = bytes.toString('latin1').replace(/\0.*$/s, '');
    if (!sender.test(comm)) continue;
    const pid = Number(parseMembers(await session.run(`struct task_struct.pid ${address}`)).pid);
    return { receiver, initiator: { comm, pid } };
  }
  return { receiver, initiator: null };
}

/**
 * The sk_buff is found, not given: a stack word that points into an sk_buff cache, reads as one with fragments, and has a fragment that
 * holds another stack word, an address in the reported cache. That word is what was to be copied.
 */
async function findCopy(session: CrashSession, words: LabelledWord[], facts: AnalysisFacts): Promise<void> {
  const named = words.filter(({ cache }) => cache === facts.usercopy?.object);
  const told = facts.usercopy?.address;
  // An address that the kernel printed is what was to be copied. Where none is, any word of that cache may be.
  const targets = told ? [BigInt(`0x${told}`)] : named.map(({ address }) => BigInt(`0x${address}`));
  const seen = new Set<string>();
  const isOwn = ({ cache }: LabelledWord): boolean => /^skbuff_/.test(cache);
  // Kernels before 4.16, which print the address, merge sk_buffs into a kmalloc cache of their size: then any word may be one, if it
  // reads as one and holds that very address. Without an address chance would find sk_buffs that are none.
  const merged = told ? words.filter((word) => !isOwn(word)) : [];
  for (const word of [...words.filter(isOwn), ...merged]) {
    if (seen.has(word.address)) continue;
    seen.add(word.address);
    const skb = await readSkb(session, word);
    if (!skb) continue;
    // Kept even if it turns out not to hold the copy: it is what the stack had.
    if (isOwn(word)) facts.skb ??= skb;
    const text = await session.run(`struct skb_shared_info.frags ${skb.sharedInfo}`, 'probe');
    for (const [index, fragment] of parseFragments(text, skb.fragments).entries()) {
      const start = await fragmentAddress(session, fragment);
      if (start === null) continue;
      const { page, offset, size } = fragment;
      const inside = targets.filter((at) => at >= start && at < start + BigInt(size));
      if (inside.length === 0) continue;
      const copied = inside.reduce((low, at) => (at < low ? at : low));
      facts.skb = skb;
      facts.fragment = { index, page: page.replace(/^0x/, ''), offset, size, address: hex(start) };
      await findObject(session, hex(copied), facts);
      return;
    }
  }
  const [first] = targets;
  if (first !== undefined) await findObject(session, hex(first), facts);
}

/**
 * The sk_buff with a fragment that the reported copy lies in: one that runs across the end of a compound page, at the offset that the
 * kernel printed.
 */
async function findCrossing(
  session: CrashSession,
  words: LabelledWord[],
  facts: AnalysisFacts,
): Promise<void> {
  const copy = facts.usercopy;
  if (copy?.offset == null) return;
  const pageSize = parseValue(await session.run('p sizeof(struct page)'));
  if (pageSize === null) return;
  const seen = new Set<string>();
  for (const word of words.filter(({ cache }) => /^skbuff_/.test(cache))) {
    if (seen.has(word.address)) continue;
    seen.add(word.address);
    const skb = await readSkb(session, word);
    if (!skb) continue;
    facts.skb ??= skb;
    const text = await session.run(`struct skb_shared_info.frags ${skb.sharedInfo}`, 'probe');
    for (const [index, fragment] of parseFragments(text, skb.fragments).entries()) {
      const compound = await compoundPage(session, fragment, BigInt(pageSize));
      if (!compound) continue;
      const { page, offset, size } = fragment;
      const isHere = compound.offset <= copy.offset && copy.offset + copy.length <= compound.offset + size;
      if (!isHere) continue;
      const start = await fragmentAddress(session, fragment);
      if (start === null) continue;
      facts.skb = skb;
      facts.fragment = { index, page: page.replace(/^0x/, ''), offset, size, address: hex(start) };
      facts.compound = compound;
      return;
    }
  }
}

const PAGE_BYTES = 4096;

/**
 * The compound page that a fragment begins in (struct page: compound_head, and compound_order of the page behind the head); null if it is
 * in none.
 */
async function compoundPage(
  session: CrashSession,
  { page, offset }: Fragment,
  pageSize: bigint,
): Promise<AnalysisFacts['compound']> {
  const at = BigInt(`0x${page.replace(/^0x/, '')}`);
  const headOf = async (address: bigint): Promise<bigint | null> => {
    const text = await session.run(`struct page.compound_head ${hex(address)}`, 'probe');
    const value = /compound_head = (\d+|0x[0-9a-f]+)/.exec(text)?.[1];
    if (value === undefined) return null;
    const word = BigInt(value);
    return (word & 1n) === 1n ? word - 1n : address;
  };
  const head = await headOf(at);
  if (head === null) return null;
  const text = await session.run(`struct page.compound_order ${hex(head + pageSize)}`, 'probe');
  const order = Number(/compound_order = (\d+)/.exec(text)?.[1] ?? Number.NaN);
  // A page that heads nothing has a neighbour whose word there is of something else.
  if ((await headOf(head + pageSize)) !== head || !(order >= 1 && order <= 20)) return null;
  const next = head + pageSize * BigInt(2 ** order);
  return {
    page: hex(head),
    order,
    bytes: PAGE_BYTES * 2 ** order,
    offset: Number((at - head) / pageSize) * PAGE_BYTES + offset,
    next: hex(next),
    nextHead: hex((await headOf(next)) ?? next),
  };
}

async function readSkb(
  session: CrashSession,
  { address, cache, frame }: LabelledWord,
): Promise<AnalysisFacts['skb']> {
  const skb = parseMembers(await session.run(`struct sk_buff.len,data_len,head,end,sk ${address}`, 'probe'));
  const [len, dataLen, end] = [Number(skb.len), Number(skb.data_len), Number(skb.end)];
  const head = /0x([0-9a-f]{16})/.exec(skb.head ?? '')?.[1];
  const sock = /0x([0-9a-f]{16})/.exec(skb.sk ?? '')?.[1];
  if (!head || !sock || !(dataLen <= len) || !(len > 0)) return null;
  // Kernel pointers, and no more fragments than MAX_SKB_FRAGS: a foreign object that is read as an sk_buff has neither.
  if (!/^ff/.test(head) || !/^ff/.test(sock)) return null;
  const sharedInfo = hex(BigInt(`0x${head}`) + BigInt(end));
  const info = parseMembers(await session.run(`struct skb_shared_info.nr_frags ${sharedInfo}`, 'probe'));
  const fragments = Number.parseInt(info.nr_frags ?? '', 10);
  if (!(fragments >= 1 && fragments <= 64)) return null;
  return {
    address,
    cache,
    frame,
    len,
    dataLen,
    headLen: len - dataLen,
    head,
    end,
    sharedInfo,
    fragments,
    sock,
  };
}

async function findObject(session: CrashSession, address: string, facts: AnalysisFacts): Promise<void> {
  const object = parseKmem(await session.run(`kmem ${address}`));
  if (!object) return;
  const { base, cache, objectSize, slabSize, allocated, page, headPage } = object;
  const pageIs = page === headPage ? 'head' : 'tail';
  facts.object = { address, base, cache, objectSize, slabSize, allocated, page, headPage, pageIs };
}

async function fragmentAddress(session: CrashSession, { page, offset }: Fragment): Promise<bigint | null> {
  const rows = await session.run(`kmem -p ${page}`, 'probe');
  const physical = new RegExp(`^\\s*${page.replace(/^0x/, '')}\\s+([0-9a-f]+)\\s`, 'm').exec(rows)?.[1];
  if (physical === undefined) return null;
  const virtual = /^([0-9a-f]{16})\s+[0-9a-f]+/m.exec(await session.run(`ptov ${physical}`, 'probe'))?.[1];
  return virtual === undefined ? null : BigInt(`0x${virtual}`) + BigInt(offset);
}

/** Every whole object under the copy, and what it begins with. */
async function readObjects(session: CrashSession, facts: AnalysisFacts): Promise<void> {
  const { object, usercopy } = facts;
  if (!object || object.objectSize <= 0) return;
  const length = usercopy?.length ?? facts.fragment?.size ?? object.objectSize;
  const count = Math.min(Math.max(Math.floor(length / object.objectSize), 1), MAX_OBJECTS);
  for (let index = 0; index < count; index++) {
    const address = hex(BigInt(`0x${object.address}`) + BigInt(index * object.objectSize));
    const kmem = index === 0 ? object : parseKmem(await session.run(`kmem ${address}`));
    const bytes = parseBytes(await session.run(`rd -8 ${address} 32`));
    facts.objects.push({
      address,
      cache: kmem?.cache ?? 'unknown',
      allocated: kmem?.allocated ?? null,
      firstBytes: bytes.length > 0 ? bytes.toString('hex') : null,
      header: xfsHeader(bytes),
    });
  }
}

/** Both ends of the receiver's socket. Addresses and the remote port are in network byte order in the dump. */
async function socket(session: CrashSession, sock: string): Promise<AnalysisFacts['socket']> {
  const read = async (member: string): Promise<number | null> =>
    parseValue(await session.run(`p ((struct sock *)0x${sock})->__sk_common.${member}`));
  const AF_INET = 2;
  if ((await read('skc_family')) !== AF_INET) return null;
  const [local, remote] = [await read('skc_rcv_saddr'), await read('skc_daddr')];
  const [localPort, remotePort] = [await read('skc_num'), await read('skc_dport')];
  if (local === null || remote === null || localPort === null || remotePort === null) return null;
  const dotted = (value: number): string => [0, 8, 16, 24].map((shift) => (value >>> shift) & 255).join('.');
  const swap = (value: number): number => ((value & 255) << 8) | (value >> 8);
  return { local: dotted(local), localPort, remote: dotted(remote), remotePort: swap(remotePort) };
}
