import { harmless } from '../base/harmless.js';
import type { Bug } from '../bug/bug.js';
import { transportOf } from '../bug/family.js';
import type { Analysis } from './analysis-schema.js';
import type { CrashAnswer } from './crash-session.js';

const MAX_LINES = 24;

/** analysis.md: the walk in the article's order, each step with the crash command that shows it, so that a person can repeat it. */
export function tellAnalysis(analysis: Analysis, transcript: readonly CrashAnswer[], bug: Bug): string {
  const { facts } = analysis;
  const { sender } = transportOf(bug.transport);
  const out: string[] = [`# What ${analysis.vmcore} shows`, '', analysis.conclusion.text, ''];
  if (analysis.problem) out.push(`The walk stopped early: ${analysis.problem}`, '');
  const show = (pattern: RegExp, lines = MAX_LINES): void => {
    const answer = transcript.find(({ command }) => pattern.test(command));
    if (!answer) return;
    const rows = answer.output.trimEnd().split('\n');
    const cut =
      rows.length > lines ? [...rows.slice(0, lines), `… (${rows.length - lines} more lines)`] : rows;
    // Memory of a guest may hold anything: no line of it ends the block, or acts on a terminal.
    const plain = cut.map((row) => harmless(row).replace(/^(\s{0,3})```/, '$1` ` `'));
    out.push('```', `crash> ${answer.command}`, ...plain, '```', '');
  };
  const section = (title: string, text: string): void => void out.push(`## ${title}`, '', text, '');

  section(
    'The panic',
    facts.usercopy
      ? `\`${facts.usercopy.line}\``
      : `No usercopy line; crash says \`${facts.panic ?? 'nothing'}\`.`,
  );
  if (facts.task)
    out.push(`The task was ${facts.task.comm}, pid ${facts.task.pid}, on CPU ${facts.task.cpu}.`, '');
  show(/^bt$/, 40);
  if (facts.skb) {
    const { skb } = facts;
    section(
      'The sk_buff',
      `The frame of ${skb.frame} holds the sk_buff ${skb.address} (${skb.cache}). It has ${skb.len} bytes, ${skb.dataLen} of them in fragments, so its linear part has ${skb.headLen}. Its skb_shared_info is at head + end = ${skb.sharedInfo}.`,
    );
    show(new RegExp(`^struct sk_buff\\..* ${skb.address}$`));
    show(new RegExp(`^struct skb_shared_info\\.nr_frags ${skb.sharedInfo}$`));
    show(new RegExp(`^struct skb_shared_info\\.frags ${skb.sharedInfo}$`), 8);
  }
  if (facts.fragment)
    out.push(
      `Fragment ${facts.fragment.index}: ${facts.fragment.size} bytes at offset ${facts.fragment.offset} of page ${facts.fragment.page}, which is address ${facts.fragment.address}.`,
      '',
    );
  if (facts.object) {
    const { object } = facts;
    section(
      'The address',
      `${object.address} is an ${object.allocated ? 'allocated' : 'unallocated'} object of ${object.cache} (${object.objectSize} bytes, slabs of ${object.slabSize}). Its page ${object.page} is a ${object.pageIs} page${object.pageIs === 'tail' ? ` of the slab that begins at ${object.headPage}: it carries no slab flag of its own` : ''}. The address is not wrong.`,
    );
    show(new RegExp(`^kmem ${object.address}$`));
  }
  if (facts.compound) {
    const { compound } = facts;
    section(
      'The page',
      `The fragment begins ${compound.offset} bytes into the compound page ${compound.page} (order ${compound.order}, ${compound.bytes} bytes). The copy of ${facts.usercopy?.length ?? '?'} bytes at ${facts.usercopy?.offset ?? '?'} ends ${(facts.usercopy?.offset ?? 0) + (facts.usercopy?.length ?? 0) - compound.bytes} bytes behind its end, in the page ${compound.next} (of ${compound.nextHead}).`,
    );
    show(new RegExp(`^struct page\\.compound_head ${facts.fragment?.page}$`));
    show(/^struct page\.compound_order/);
    show(new RegExp(`^struct page\\.compound_head ${compound.next}$`));
  }
  if (facts.objects.length > 0) {
    section(
      'The length',
      `The copy of ${facts.usercopy?.length ?? '?'} bytes spans ${facts.objects.length} whole objects: the length is not wrong either, it is a sum.`,
    );
    for (const { address, header, allocated } of facts.objects)
      out.push(
        `- ${address}: ${allocated === null ? 'state unknown' : allocated ? 'allocated' : 'free'}, ${header ? `${header.magic} (${header.meaning}${header.allocationGroup === null ? '' : `, allocation group ${header.allocationGroup}`})` : 'no XFS header'}`,
      );
    out.push('');
    for (const { address } of facts.objects) show(new RegExp(`^rd -8 ${address}`));
  }
  if (facts.sent.length > 0)
    section(
      'The calls',
      `The kernel's own trace has who sent that page by reference (page ${facts.sent[0]?.page}): ${facts.sent.map(({ offset, size }) => `${size} bytes at ${offset}`).join(', then ')}.`,
    );
  if (facts.socket) {
    const { socket } = facts;
    section(
      'The socket',
      `It joins ${socket.local}:${socket.localPort} and ${socket.remote}:${socket.remotePort}. The receiver reads the sender's own page. Receiver: ${facts.processes?.receiver?.comm ?? 'unknown'} (pid ${facts.processes?.receiver?.pid ?? '?'}); sender: ${sender.words} ${facts.processes?.initiator?.comm ?? 'unknown'} (pid ${facts.processes?.initiator?.pid ?? '?'}).`,
    );
    show(new RegExp(`${facts.skb?.sock}.*skc_rcv_saddr`));
    show(new RegExp(`${facts.skb?.sock}.*skc_num`));
  }
  if (facts.module)
    section(
      'The gate',
      `${facts.module.name} was loaded at ${facts.module.address}, srcversion ${facts.module.srcversion ?? 'none (compare the build id in outcome.json)'}.`,
    );
  out.push('## Checks', '', '| check | expected | found | holds |', '|---|---|---|---|');
  for (const { name, expected, found, holds } of analysis.checks)
    out.push(`| ${name} | ${expected} | ${found.replaceAll('|', '\\|')} | ${holds ? 'yes' : '**no**'} |`);
  return `${out.join('\n')}\n`;
}
