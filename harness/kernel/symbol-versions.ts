import { join } from 'node:path';
import { readGiven } from '../base/given-file.js';
import { elfSymbols, inElf, type Section, textAt } from './elf.js';

/** Checksums of symbols, hex, by name. */
export type SymbolVersions = Map<string, string>;

/**
 * What a module wants of others: the checksums in its __versions section (struct modversion_info, 64 bytes each), and the symbols that it
 * does not define. Throws UsageError if the file is damaged.
 */
export function wantedSymbols(file: string): Promise<WantedSymbols> {
  return inElf(file, wantedIn);
}

interface WantedSymbols {
  versions: SymbolVersions;
  undefinedSymbols: string[];
  stripped: boolean;
}

function wantedIn(sections: readonly Section[]): WantedSymbols {
  const symbols = elfSymbols(sections);
  const versions: SymbolVersions = new Map();
  const table = sections.find(({ name }) => name === '__versions')?.content ?? Buffer.alloc(0);
  const ENTRY = 64;
  for (let at = 0; at + ENTRY <= table.length; at += ENTRY)
    versions.set(textAt(table, at + 8), hex(table.readUInt32LE(at)));
  const undefinedSymbols = symbols
    .filter(({ section, name }) => section === 0 && name !== '')
    .map(({ name }) => name);
  return { versions, undefinedSymbols, stripped: symbols.length === 0 };
}

/** What a kernel and its modules offer, from the Module.symvers of its headers; null if there is none. */
export async function offeredSymbols(headers: string): Promise<SymbolVersions | null> {
  const text = await readGiven(join(headers, 'Module.symvers'), 64).then(String, () => null);
  if (text === null) return null;
  const versions: SymbolVersions = new Map();
  for (const line of text.split('\n')) {
    const [crc, name] = line.split('\t');
    if (crc && name) versions.set(name, hex(Number.parseInt(crc, 16)));
  }
  return versions;
}

/**
 * The first symbol that a module wants and a kernel does not have as it was when the module was built, in words; or null. The kernel
 * refuses such a module with "disagrees about version of symbol", "no symbol version for" or "Unknown symbol" (kernel/module/version.c).
 */
export function whyRefused(
  { versions, undefinedSymbols, stripped }: WantedSymbols,
  offered: SymbolVersions,
): string | null {
  if (stripped) return 'it has no symbol table (stripped): the kernel refuses it';
  for (const [name, crc] of versions) {
    const there = offered.get(name);
    if (there === undefined) return `it wants the symbol ${name}, which this kernel does not offer`;
    if (there !== crc) return `its version of the symbol ${name} is ${crc}, this kernel's is ${there}`;
  }
  for (const name of undefinedSymbols) {
    if (!offered.has(name)) return `it wants the symbol ${name}, which this kernel does not offer`;
    if (versions.size > 0 && !versions.has(name)) return `it has no version of the symbol ${name}`;
  }
  return null;
}

function hex(value: number): string {
  return `0x${value.toString(16).padStart(8, '0')}`;
}
