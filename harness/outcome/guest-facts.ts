import * as z from 'zod';

/** What was read back from the guest before its workload began. Sizes in bytes. */
export const guestSchema = z.object({
  release: z.string().nullable(),
  commandLine: z.string().nullable(),
  hardenedUsercopy: z
    .enum(['on', 'off', 'absent'])
    .describe("from the kernel's configuration and the command line that it booted with"),
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
    sectorSize: z.int().nullable(),
    blockSize: z.int().nullable(),
    allocationGroups: z.int().nullable(),
    writebackCentiseconds: z.int().nullable().default(null),
  }),
  iscsi: z.record(z.string(), z.string()).describe('negotiated parameters, by their sysfs names'),
});
export type GuestFacts = z.infer<typeof guestSchema>;

/** Collects the facts that a guest prints on its second serial port: `@<token> key value`. */
export class FactReader {
  readonly #prefix: string;
  readonly #values = new Map<string, string>();
  readonly #slabs = new Map<string, { order: number; objectsPerSlab: number }>();

  constructor(token: string) {
    this.#prefix = `@${token} `;
  }

  push(text: string): void {
    if (!text.startsWith(this.#prefix)) return;
    const [key = '', ...rest] = text.slice(this.#prefix.length).trim().split(' ');
    if (key === 'slab') {
      const [cache = '', order = '', objects = ''] = rest;
      this.#slabs.set(cache, { order: Number(order), objectsPerSlab: Number(objects) });
    } else if (key !== 'alive') this.#values.set(key, rest.join(' '));
  }

  /** One fact as it was told. */
  told(key: string): string | undefined {
    return this.#values.get(key);
  }

  /** All facts, or null if the guest never got so far as to tell any. `configured`: the kernel was built with hardened usercopy. */
  facts(configured: boolean): GuestFacts | null {
    if (this.#values.size === 0) return null;
    const text = (key: string): string | null => this.#values.get(key) ?? null;
    const number = (key: string): number | null => {
      const value = Number.parseInt(text(key) ?? '', 10);
      return Number.isNaN(value) ? null : value;
    };
    const commandLine = text('cmdline');
    const iscsi: Record<string, string> = {};
    for (const [key, value] of this.#values)
      if (key.startsWith('iscsi.')) iscsi[key.slice('iscsi.'.length)] = value;
    return {
      release: text('release'),
      commandLine,
      hardenedUsercopy: !configured ? 'absent' : hardenedUsercopy(commandLine ?? ''),
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
        sectorSize: number('filesystem.sectorSize'),
        blockSize: number('filesystem.blockSize'),
        allocationGroups: number('filesystem.allocationGroups'),
        writebackCentiseconds: number('filesystem.writebackCentiseconds'),
      },
      iscsi,
    };
  }
}

/** The last `hardened_usercopy=` on a command line counts (mm/usercopy.c, strtobool); without one it is on. */
function hardenedUsercopy(commandLine: string): 'on' | 'off' {
  const given = [...commandLine.matchAll(/(?:^|\s)hardened_usercopy=(\S+)/g)].at(-1)?.[1];
  return given !== undefined && /^(off|0|n|no|false)/i.test(given) ? 'off' : 'on';
}
