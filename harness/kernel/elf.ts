import { UsageError } from '../base/errors.js';
import { readGiven } from '../base/given-file.js';

/** No module is larger, with all its debug info, in MiB. */
export const MOST_MODULE_MIB = 512;
/** Sections may overlap; those of a file that is what it says do not, and have no more bytes in all than these times its own. */
const MOST_OVERLAP = 2;
/** No name, and no string of a module's that tells it from another, is longer. */
const LONGEST_TEXT = 4096;
/** KSYM_NAME_LEN of include/linux/kallsyms.h. */
const LONGEST_SYMBOL = 512;
/** The largest module of a distribution has 60,000. */
const MOST_SYMBOLS = 500_000;

/** What `read` finds in the sections of a module's file. Throws UsageError if it is damaged. */
export async function inElf<T>(file: string, read: (sections: Section[]) => T): Promise<T> {
  const data = await readGiven(file, MOST_MODULE_MIB, 'no-such-module');
  try {
    return read(elfSections(data));
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new UsageError('not-a-module', `${file}: not a kernel module: it is damaged`, error);
  }
}

/** One section of an ELF64 file. */
export interface Section {
  index: number;
  name: string;
  type: number;
  flags: bigint;
  /** Section that a table of relocations or symbols refers to, and what it is about. */
  link: number;
  info: number;
  content: Buffer;
}

export const SHT = { SYMTAB: 2, RELA: 4, NOBITS: 8 } as const;
export const SHF = { ALLOC: 2n, EXECINSTR: 4n, STRINGS: 0x20n } as const;

/** All sections of a little-endian ELF64 file, in the file's order. Throws RangeError if it is cut off. Source: System V ABI. */
export function elfSections(data: Buffer): Section[] {
  const offset = Number(data.readBigUInt64LE(40));
  const [entrySize, count, namesIndex] = [
    data.readUInt16LE(58),
    data.readUInt16LE(60),
    data.readUInt16LE(62),
  ];
  const section = (index: number): Omit<Section, 'name'> & { nameAt: number } => {
    const at = offset + index * entrySize;
    const type = data.readUInt32LE(at + 4);
    const [from, size] = [Number(data.readBigUInt64LE(at + 24)), Number(data.readBigUInt64LE(at + 32))];
    return {
      index,
      nameAt: data.readUInt32LE(at),
      type,
      flags: data.readBigUInt64LE(at + 8),
      link: data.readUInt32LE(at + 40),
      info: data.readUInt32LE(at + 44),
      content: type === SHT.NOBITS ? Buffer.alloc(0) : data.subarray(from, from + size),
    };
  };
  const names = count === 0 ? Buffer.alloc(0) : section(namesIndex).content;
  let bytes = 0;
  return Array.from({ length: count }, (_, index) => {
    const { nameAt, ...rest } = section(index);
    bytes += rest.content.length;
    if (bytes > data.length * MOST_OVERLAP) throw new RangeError('its sections overlap');
    return { ...rest, name: textAt(names, nameAt) };
  });
}

/** One symbol. */
export interface ElfSymbol {
  name: string;
  /** 3: it stands for its section. */
  type: number;
  /** Section that it is in; 0: undefined here. */
  section: number;
  value: number;
}

/** The symbol table; empty if the file was stripped. */
export function elfSymbols(sections: readonly Section[]): ElfSymbol[] {
  const table = sections.find(({ type }) => type === SHT.SYMTAB);
  if (!table) return [];
  const names = sections[table.link]?.content ?? Buffer.alloc(0);
  const ENTRY = 24;
  if (table.content.length > MOST_SYMBOLS * ENTRY)
    throw new RangeError('it has more symbols than any module');
  return Array.from({ length: Math.floor(table.content.length / ENTRY) }, (_, index) => {
    const at = index * ENTRY;
    return {
      name: textAt(names, table.content.readUInt32LE(at), LONGEST_SYMBOL),
      type: (table.content[at + 4] ?? 0) & 0xf,
      section: table.content.readUInt16LE(at + 6),
      value: Number(table.content.readBigUInt64LE(at + 8)),
    };
  });
}

/** A string that ends with a NUL, or is cut. */
export function textAt(table: Buffer, at: number, longest = LONGEST_TEXT): string {
  const part = table.subarray(at, at + longest);
  const end = part.indexOf(0);
  return part.toString('latin1', 0, end < 0 ? part.length : end);
}
