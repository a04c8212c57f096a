import { createHash } from 'node:crypto';
import { elfSymbols, inElf, type Section, SHF, SHT, textAt } from './elf.js';

// What tells nothing of what a module does: names, versions, source lines, and tables that follow from the code (for unwinding, tracing
// and patching it). Tables that decide what code does stay: which key a branch asks (__jump_table), what an instruction is replaced by
// (.altinstructions), where a fault goes on (__ex_table), parameters and exports.
const NO_CODE =
  /^\.(?:note|comment|debug|modinfo|orc_unwind|eh_frame|BTF|llvm|retpoline_sites|return_sites|call_sites|ibt_endbr_seal|smp_locks|static_call|gnu|rodata\.str|codetag)|^__(?:versions|mcount_loc|patchable|kcrctab|dyndbg|tracepoints)/;

const BUG_TABLE = '__bug_table';
/** struct bug_entry: where it is, file, line, flags. */
const BUG_ENTRY = { size: 12, file: 4, line: 8 } as const;

/** Bytes that a relocation of x86-64 takes; its value is not in the file. */
const SIZE: Record<number, number> = { 1: 8, 2: 4, 4: 4, 10: 4, 11: 4, 24: 8 };
/** Relative to the end of the field: the addend is four less than the place that is meant. */
const RELATIVE = [2, 4];
const SECTION_SYMBOL = 3;

/**
 * Names what a module does: a hash of its code and its constant and initial data, where every reference to something else is by name, and
 * every reference to a string by its text. Equal for two builds of the same code, whatever their comments, line numbers, build ids and
 * source versions. Throws UsageError if the file is damaged.
 */
export function codeKey(file: string): Promise<string> {
  return inElf(file, keyOf);
}

function keyOf(sections: readonly Section[]): string {
  const symbols = elfSymbols(sections);
  const hash = createHash('sha256');
  const code = sections
    .filter(
      ({ flags, name, type }) => (flags & SHF.ALLOC) !== 0n && type !== SHT.NOBITS && !NO_CODE.test(name),
    )
    .sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : a.index - b.index));
  // Each by the section that it is about.
  const tables = new Map<number, Section[]>();
  for (const section of sections) {
    if (section.type !== SHT.RELA) continue;
    const others = tables.get(section.info);
    if (others) others.push(section);
    else tables.set(section.info, [section]);
  }
  for (const section of code) {
    const content = Buffer.from(section.content);
    const references: string[] = [];
    for (const table of tables.get(section.index) ?? [])
      references.push(...relocations(table, content, sections, symbols));
    if (content.length === 0) continue;
    if (section.name === BUG_TABLE) withoutPlaces(content, references);
    hash.update(`${section.name}\0${content.length}\0`).update(content).update(references.join('\n'));
  }
  return hash.digest('hex');
}

/**
 * Leaves of a table of warnings what they do (once, or always), and not where they stand. One of another layout than is known is left
 * out.
 */
function withoutPlaces(content: Buffer, references: string[]): void {
  const { size, file, line } = BUG_ENTRY;
  const offsets = references.map((text) => Number(text.slice(0, text.indexOf(' '))));
  if (content.length % size !== 0 || offsets.some((at) => at % size !== 0 && at % size !== file)) {
    content.fill(0);
    references.length = 0;
    return;
  }
  for (let at = 0; at < content.length; at += size) content.writeUInt16LE(0, at + line);
  const kept = references.filter((_, index) => (offsets[index] ?? 0) % size === 0);
  references.splice(0, references.length, ...kept);
}

/** The references of a section by name; their bytes in `content` are cleared. */
function relocations(
  table: Section,
  content: Buffer,
  sections: readonly Section[],
  symbols: ReturnType<typeof elfSymbols>,
): string[] {
  const ENTRY = 24;
  const found: string[] = [];
  for (let at = 0; at + ENTRY <= table.content.length; at += ENTRY) {
    const offset = Number(table.content.readBigUInt64LE(at));
    const type = table.content.readUInt32LE(at + 8);
    const addend = Number(table.content.readBigInt64LE(at + 16));
    const symbol = symbols[table.content.readUInt32LE(at + 12)];
    content.fill(0, offset, offset + (SIZE[type] ?? 8));
    found.push(`${offset} ${type} ${targetOf(symbol, addend + (RELATIVE.includes(type) ? 4 : 0), sections)}`);
  }
  return found.sort();
}

function targetOf(
  symbol: ReturnType<typeof elfSymbols>[number] | undefined,
  place: number,
  sections: readonly Section[],
): string {
  if (!symbol) return `? ${place}`;
  const section = sections[symbol.section];
  // A string by its text: what else is in its table may differ.
  if (section && (section.flags & SHF.STRINGS) !== 0n)
    return `"${textAt(section.content, symbol.value + place)}"`;
  return symbol.type === SECTION_SYMBOL ? `${section?.name} ${place}` : `${symbol.name} ${place}`;
}
