import { UsageError } from '../base/errors.js';
import { readGiven } from '../base/given-file.js';
import { elfSections, MOST_MODULE_MIB, textAt } from './elf.js';

/** Bytes of a module's description: parameters and aliases; 100 KiB were seen. */
const MOST_MODINFO = 2 ** 20;

/** What a kernel module says of itself. */
export interface ModuleInfo {
  name: string;
  vermagic: string;
  /** Checksum of its sources, if it was built with one. */
  srcversion: string | null;
  /** GNU build id, hex, if it has one. */
  buildId: string | null;
  /** What compiled it, such as "gcc 4.8.5", if it says so. */
  compiler: string | null;
}

/**
 * Reads a kernel module's .modinfo and build id. Format: ELF64, System V ABI; .modinfo is `key=value` strings, each with a NUL.
 * Throws UsageError if the file is no x86-64 kernel module.
 */
export async function readModule(file: string): Promise<ModuleInfo> {
  const data = await readGiven(file, MOST_MODULE_MIB, 'no-such-module');
  const refuse = (why: string): UsageError =>
    new UsageError('not-a-module', `${file}: not a kernel module: ${why}`);
  if (data.toString('latin1', 0, 4) !== '\u007fELF') throw refuse('it is not an ELF file');
  try {
    return parse(data, refuse);
  } catch (error) {
    if (error instanceof RangeError) throw refuse('it is cut off');
    throw error;
  }
}

function parse(data: Buffer, refuse: (why: string) => UsageError): ModuleInfo {
  const [ELFCLASS64, ET_REL, EM_X86_64] = [2, 1, 62];
  if (data[4] !== ELFCLASS64 || data.readUInt16LE(18) !== EM_X86_64) throw refuse('it is not for x86-64');
  if (data.readUInt16LE(16) !== ET_REL) throw refuse('it is not a relocatable object');
  const sections = new Map(elfSections(data).map(({ name, content }) => [name, content]));
  const modinfo = sections.get('.modinfo');
  if (!modinfo) throw refuse('it has no .modinfo section');
  if (modinfo.length > MOST_MODINFO) throw refuse('its .modinfo is no list of a module');
  const fields = new Map<string, string>();
  for (const entry of modinfo.toString('latin1').split('\0')) {
    const equals = entry.indexOf('=');
    if (equals > 0) fields.set(entry.slice(0, equals), entry.slice(equals + 1));
  }
  const vermagic = fields.get('vermagic');
  if (vermagic === undefined) throw refuse('its .modinfo has no vermagic');
  const note = sections.get('.note.gnu.build-id');
  return {
    name: fields.get('name') ?? nameInside(sections.get('.gnu.linkonce.this_module')),
    vermagic: vermagic.trim(),
    srcversion: fields.get('srcversion') ?? null,
    buildId: note ? note.subarray(note.length - 20).toString('hex') : null,
    compiler: compilerOf(sections.get('.comment')?.toString('latin1', 0, 4096) ?? ''),
  };
}

/** Modules before 4.10 do not name themselves in .modinfo: the name is in their struct module, after the state and the list links. */
function nameInside(self: Buffer | undefined): string {
  const NAME = 24;
  if (!self || self.length < NAME + 56) return '';
  return textAt(self, NAME);
}

/** From a .comment section: `GCC: (Debian 12.2.0-14) 12.2.0`, `Debian clang version 14.0.6`. */
function compilerOf(comment: string): string | null {
  const gcc = /GCC: \(.*?\) (\d+\.\d+(?:\.\d+)?)/.exec(comment)?.[1];
  const clang = /clang version (\d+[\d.]*)/.exec(comment)?.[1];
  return gcc !== undefined ? `gcc ${gcc}` : clang !== undefined ? `clang ${clang}` : null;
}
