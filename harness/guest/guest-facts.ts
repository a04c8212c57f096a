import * as z from 'zod';
import { KernelLog } from './kernel-log.js';

/** What was read back from the guest, before its workload or after it. Sizes in bytes. */
export const guestSchema = z.object({
  release: z.string().nullable(),
  commandLine: z.string().nullable(),
  hardenedUsercopy: z
    .enum(['on', 'off', 'absent'])
    .nullable()
    .describe(
      'what the kernel does: its check looked at copies (on), or at none (off); null if it could not be watched',
    ),
  usercopyChecks: z
    .int()
    .nullable()
    .default(null)
    .describe('copies that the check looked at while a few files were opened and read'),
  module: z
    .object({ srcversion: z.string().nullable(), buildId: z.string().nullable() })
    .describe('of the loaded module'),
  cpus: z.object({ online: z.string().nullable(), possible: z.string().nullable() }),
  slabs: z
    .record(z.string(), z.object({ order: z.int(), objectsPerSlab: z.int() }))
    .describe('geometry of the kmalloc caches'),
  slabDebug: z
    .object({ redZone: z.boolean().nullable() })
    .describe('of kmalloc-512; null where the kernel does not tell'),
  block: z.object({
    logicalBlockSize: z.int().nullable(),
    physicalBlockSize: z.int().nullable(),
    nomerges: z.int().nullable(),
  }),
  filesystem: z.object({
    name: z.string().nullable().default(null),
    sectorSize: z.int().nullable(),
    blockSize: z.int().nullable(),
    allocationGroups: z.int().nullable(),
    writebackCentiseconds: z.int().nullable().default(null),
  }),
  transport: z
    .record(z.string(), z.string())
    .default({})
    .describe("the transport's settings as they were negotiated, and where its target is"),
  sessionPorts: z
    .array(z.int())
    .default([])
    .describe("TCP ports of the sender's own ends of its connections: after a recovery they are others"),
});
export type GuestFacts = z.infer<typeof guestSchema>;

/** More than this no guest's scripts tell: a guest may say anything. */
const MOST_FACTS = 256;
const MOST_SLABS = 64;
const LONGEST_KEY = 128;
/** COMMAND_LINE_SIZE of arch/x86/include/uapi/asm/setup.h, and some. */
const LONGEST_VALUE = 4096;

/**
 * Collects what a guest prints on its second serial port: `@<token> key value`. The facts are told twice, `again` in between; then comes
 * the kernel's log, record by record.
 */
export class FactReader {
  readonly kernelLog = new KernelLog();
  readonly #prefix: string;
  #values = new Map<string, string>();
  #slabs = new Map<string, { order: number; objectsPerSlab: number }>();
  #before: FactReader | null = null;

  constructor(token: string) {
    this.#prefix = `@${token} `;
  }

  /** Takes the text of one line; `line` is its number. */
  push(text: string, line = 0): void {
    if (!text.startsWith(this.#prefix)) return;
    const said = text.slice(this.#prefix.length);
    const [key = '', ...rest] = said.trim().split(' ');
    if (key.startsWith('kmsg')) this.kernelLog.push(said, line);
    else if (key === 'slab') {
      const [cache = '', order = '', objects = ''] = rest;
      const [pages, count] = [wholeNumber(order), wholeNumber(objects)];
      if (pages !== null && count !== null && this.#slabs.size < MOST_SLABS)
        this.#slabs.set(cache.slice(0, LONGEST_KEY), { order: pages, objectsPerSlab: count });
    } else if (key === 'again' && this.#before === null) {
      this.#before = new FactReader('');
      [this.#before.#values, this.#before.#slabs] = [this.#values, this.#slabs];
      [this.#values, this.#slabs] = [new Map(), new Map()];
    } else if (key !== 'alive' && (this.#values.size < MOST_FACTS || this.#values.has(key)))
      this.#values.set(key.slice(0, LONGEST_KEY), rest.join(' ').slice(0, LONGEST_VALUE));
  }

  /** One fact as it was told first. */
  told(key: string): string | undefined {
    return (this.#before ?? this).#values.get(key);
  }

  /**
   * The facts from before the workload, or null if the guest never got so far as to tell any. `configured`: the kernel was built with
   * hardened usercopy.
   */
  facts(configured: boolean): GuestFacts | null {
    return (this.#before ?? this).#facts(configured);
  }

  /** The facts from after the workload; null if they were not told. */
  factsAfter(configured: boolean): GuestFacts | null {
    return this.#before === null ? null : this.#facts(configured);
  }

  #facts(configured: boolean): GuestFacts | null {
    if (this.#values.size === 0) return null;
    const text = (key: string): string | null => this.#values.get(key) ?? null;
    const number = (key: string): number | null => wholeNumber(text(key) ?? '');
    const transport: Record<string, string> = {};
    for (const [key, value] of this.#values)
      if (key.startsWith('transport.')) transport[key.slice('transport.'.length)] = value;
    const ports = text('session.localPorts')?.split(' ') ?? [];
    const checks = number('usercopy.checks');
    return {
      release: text('release'),
      commandLine: text('cmdline'),
      hardenedUsercopy: !configured ? 'absent' : checks === null ? null : checks > 0 ? 'on' : 'off',
      usercopyChecks: checks,
      module: { srcversion: text('module.srcversion'), buildId: text('module.buildId') },
      cpus: { online: text('cpus.online'), possible: text('cpus.possible') },
      slabs: Object.fromEntries(
        [...this.#slabs].sort(([a], [b]) => a.localeCompare(b, 'en', { numeric: true })),
      ),
      slabDebug: { redZone: number('slab.redZone') === null ? null : number('slab.redZone') === 1 },
      block: {
        logicalBlockSize: number('block.logicalBlockSize'),
        physicalBlockSize: number('block.physicalBlockSize'),
        nomerges: number('block.nomerges'),
      },
      filesystem: {
        name: text('filesystem.name'),
        sectorSize: number('filesystem.sectorSize'),
        blockSize: number('filesystem.blockSize'),
        allocationGroups: number('filesystem.allocationGroups'),
        writebackCentiseconds: number('filesystem.writebackCentiseconds'),
      },
      transport,
      // In hexadecimal, as /proc/net/tcp has them.
      sessionPorts: ports.every((port) => /^[0-9A-F]{4}$/.test(port))
        ? ports.map((port) => Number.parseInt(port, 16)).sort((a, b) => a - b)
        : [],
    };
  }
}

/** Facts by their names; of those with a dot at the end all that begin so. */
const FACTS = [
  ...['alive', 'again', 'slab', 'release', 'cmdline', 'cpus.online', 'cpus.possible', 'slab.redZone'],
  ...['module.srcversion', 'module.buildId', 'usercopy.checks', 'session.localPorts', 'kdump.loaded'],
  ...['gate.probe', 'gate.why', 'gate.rest'],
  ...['block.logicalBlockSize', 'block.physicalBlockSize', 'block.nomerges'],
  ...['filesystem.blockSize', 'filesystem.allocationGroups', 'filesystem.sectorSize'],
  ...['filesystem.writebackCentiseconds', 'filesystem.name', 'transport.', 'absent.', 'kmsg'],
];

/** True of a key that a guest's scripts may tell. */
export function knownFact(key: string): boolean {
  return FACTS.some((fact) => (fact.endsWith('.') ? key.startsWith(fact) : key === fact));
}

/** Null for what is none, or too large to be exact: a guest may say anything. */
function wholeNumber(text: string): number | null {
  return /^\d{1,12}$/.test(text) ? Number(text) : null;
}
