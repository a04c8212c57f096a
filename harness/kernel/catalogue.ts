import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import * as z from 'zod';
import { UsageError } from '../base/errors.js';
import { exists } from '../base/files.js';
import { suggestion } from '../base/nearest.js';
import { imagesDir } from '../base/paths.js';
import { readYaml } from '../base/yaml-file.js';
import type { SigningKey } from '../package/rpm.js';
import type { LocatedPackage, Mirror } from '../package/rpm-repository.js';
import { presentIds } from './store.js';

const packageName = z.string().regex(/^[a-z0-9][a-z0-9.+-]*$/, "must be a package's name");
const below = z
  .string()
  .regex(
    /^(?:\.|(?!.*(?:^|\/)\.\.?(?:\/|$))[\w.+~][\w./+~-]*)$/,
    "must be a path below the mirror: letters, digits, '.', '/', '_', '+', '~' and '-'",
  );
const packageRef = z.strictObject({
  mirror: z.string(),
  repo: below.describe("folder below the mirror that has the repository's repodata/"),
  path: below.describe('the package, below repo'),
});
/** Where a package is to be had. */
export type PackageRef = z.infer<typeof packageRef>;

const base = {
  summary: z.string(),
  stock: z
    .strictObject({ verdict: z.enum(['panics', 'clean', 'unknown']), source: z.string() })
    .describe("what the kernel's own module is expected to show, and who says so"),
};
const entrySchema = z.discriminatedUnion('origin', [
  z.strictObject({
    origin: z.literal('debian'),
    suite: z.string().regex(/^[a-z][\w-]*$/, 'must be the name of a suite, such as bookworm'),
    image: packageName.describe("the suite's meta package"),
    source: packageName.describe('the source package'),
    ...base,
  }),
  z.strictObject({
    origin: z.literal('built'),
    from: z.string().describe("a kernel of Debian's"),
    patches: z
      .array(z.string().regex(/^[\w][\w.-]*$/, 'must be a file beside the others'))
      .min(1)
      .describe('below vm-images/kernel-patches'),
    ...base,
  }),
  z.strictObject({
    origin: z.literal('rpm'),
    version: z
      .string()
      .regex(/^[A-Za-z0-9][\w.+~:-]*$/, 'must be a version, such as 3.10.0-957.el7')
      .describe("the packages' version-release"),
    release: z
      .string()
      .regex(/^[A-Za-z0-9][\w.+~-]*$/, "must be a kernel's release, such as 3.10.0-957.el7.x86_64")
      .describe('uname -r of the kernel in them'),
    kernel: z.array(packageRef).min(1),
    devel: packageRef.optional(),
    sources: packageRef.optional(),
    debuginfo: packageRef.optional(),
    ...base,
  }),
]);
/** kernels.yaml: kernels that can be had, from where, and who vouches for them. */
export const catalogueSchema = z
  .strictObject({
    keys: z
      .record(
        z.string(),
        z.strictObject({
          file: z.string().describe('beside the catalogue'),
          fingerprint: z.string().regex(/^[0-9A-F]{40}$/, 'must be 40 capital hex digits'),
        }),
      )
      .default({}),
    mirrors: z.record(z.string(), z.strictObject({ url: z.url(), key: z.string() })).default({}),
    kernels: z.record(z.string().regex(/^[A-Za-z0-9][\w.-]*$/), entrySchema).default({}),
  })
  .superRefine((catalogue, context) => {
    for (const [name, { key }] of Object.entries(catalogue.mirrors))
      if (!Object.hasOwn(catalogue.keys, key))
        context.addIssue({ code: 'custom', path: ['mirrors', name, 'key'], message: `no key ${key}` });
  });

export type CatalogueEntry = z.infer<typeof entrySchema>;

interface Catalogue {
  kernels: Record<string, CatalogueEntry>;
  mirrors: Record<string, Mirror>;
}

/** The user's own entries: `$XDG_CONFIG_HOME/loopanic/kernels.yaml`, or below ~/.config. */
function userCatalogue(): string {
  const xdg = process.env.XDG_CONFIG_HOME;
  return join(xdg?.startsWith('/') ? xdg : join(homedir(), '.config'), 'loopanic/kernels.yaml');
}

/** loopanic's catalogue and the user's, whose entries win. Throws UsageError. */
function loadCatalogue(): Promise<Catalogue> {
  parsed ??= parseCatalogue();
  return parsed;
}

/** Read once: what a command does is of one catalogue. */
let parsed: Promise<Catalogue> | undefined;

async function parseCatalogue(): Promise<Catalogue> {
  const merged: Catalogue = { kernels: {}, mirrors: {} };
  for (const file of [join(imagesDir, 'kernels.yaml'), userCatalogue()]) {
    if (file === userCatalogue() && !(await exists(file))) continue;
    const { keys, mirrors, kernels } = await readYaml(file, catalogueSchema);
    Object.assign(merged.kernels, kernels);
    for (const [name, { url, key }] of Object.entries(mirrors)) {
      const { file: keyFile = '', fingerprint = null } = keys[key] ?? {};
      merged.mirrors[name] = {
        url: (process.env[mirrorVariable(name)] || url).replace(/\/+$/, ''),
        key: { name: key, file: resolve(dirname(file), keyFile), fingerprint },
      };
    }
  }
  return merged;
}

/** Environment variable that overrides a mirror's URL. */
export function mirrorVariable(name: string): string {
  return `LOOPANIC_${name.toUpperCase().replace(/\W/g, '_')}`;
}

/** All kernels that loopanic knows how to get, by id. */
export async function catalogue(): Promise<Record<string, CatalogueEntry>> {
  return (await loadCatalogue()).kernels;
}

/** Where a package is to be had: with its mirror. Throws UsageError. */
export async function located(ref: PackageRef): Promise<LocatedPackage> {
  const { mirrors } = await loadCatalogue();
  const mirror = Object.hasOwn(mirrors, ref.mirror) ? mirrors[ref.mirror] : undefined;
  if (!mirror) throw new UsageError('unknown-mirror', `the kernel catalogue has no mirror ${ref.mirror}`);
  return { mirror, repo: ref.repo, path: ref.path };
}

/** Keys that RPMs from anywhere are checked against. */
export async function knownKeys(): Promise<SigningKey[]> {
  const keys = new Map<string, SigningKey>();
  for (const { key } of Object.values((await loadCatalogue()).mirrors)) keys.set(key.file, key);
  return [...keys.values()];
}

/** The catalogue's entry for an id. Throws UsageError with the nearest ids. */
export async function catalogueEntry(id: string): Promise<CatalogueEntry> {
  const known = await catalogue();
  const entry = Object.hasOwn(known, id) ? known[id] : undefined;
  if (!entry)
    throw new UsageError('unknown-kernel', `unknown kernel ${id}${suggestion(id, Object.keys(known))}`);
  return entry;
}

/** Checks that an id is in the catalogue or on this host. Throws UsageError with the nearest ids. */
export async function checkKernelId(id: string): Promise<void> {
  const ids = [...new Set([...Object.keys(await catalogue()), ...(await presentIds())])];
  if (!ids.includes(id)) throw new UsageError('unknown-kernel', `unknown kernel ${id}${suggestion(id, ids)}`);
}
