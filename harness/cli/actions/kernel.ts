import { join } from 'node:path';
import { EXIT, interruptible, UsageError } from '../../base/errors.js';
import { imagesDir } from '../../base/paths.js';
import { gateModules } from '../../bug/family.js';
import { type AddRequest, addKernel } from '../../kernel/add.js';
import { buildKernel, builtId } from '../../kernel/build-kernel.js';
import { catalogue, catalogueEntry } from '../../kernel/catalogue.js';
import { debugVmlinux, ensureDebugInfo } from '../../kernel/debug-info.js';
import { ensureKernel, fetchKernel } from '../../kernel/fetch.js';
import type { Kernel } from '../../kernel/kernel.js';
import { presentIds, presentKernel, removeKernel } from '../../kernel/store.js';
import { modulesOf } from '../../module/module.js';
import { type Context, printResult, progressFor, table } from '../context.js';

/** `loopanic kernel ls`: the catalogue, what of it is on this host, and what was added. */
export async function kernelList(args: { json: boolean }): Promise<number> {
  const known = await catalogue();
  const ids = [...new Set([...Object.keys(known), ...(await presentIds())])];
  const rows = await Promise.all(
    ids.map(async (id) => {
      const kernel = await presentKernel(id);
      const entry = known[id];
      return {
        id,
        origin: kernel?.origin ?? entry?.origin ?? 'damaged',
        summary: entry?.summary ?? 'added by hand',
        stock: entry?.stock ?? null,
        present: kernel !== null,
        release: kernel?.release ?? null,
        version: kernel?.version ?? (entry?.origin === 'rpm' ? entry.version : null),
        compiler: kernel?.compiler ?? null,
        hardenedUsercopy: kernel?.profile.hardenedUsercopyBuilt ?? null,
        debugInfo: kernel ? (await debugVmlinux(kernel)) !== null : null,
        modules: kernel ? await allModulesOf(kernel) : [],
        unfit: kernel?.profile.unfit ?? [],
        packages: kernel?.packages ?? [],
      };
    }),
  );
  printResult(args.json, rows, () =>
    table([
      ['KERNEL', 'ORIGIN', 'RELEASE', 'HARDENED USERCOPY', 'DEBUG INFO', 'MODULES', 'SUMMARY'],
      ...rows.map((row) => [
        row.id,
        row.origin,
        row.release ?? (row.origin === 'damaged' ? 'damaged' : 'not fetched'),
        yesNo(row.hardenedUsercopy),
        yesNo(row.debugInfo),
        row.modules.join(' ') || '-',
        row.summary,
      ]),
    ]),
  );
  return EXIT.ok;
}

/** Modules that are there for a kernel; of other bugs than the usual one with the name of what they stand in for. */
async function allModulesOf(kernel: Kernel): Promise<string[]> {
  const names: string[] = [];
  for (const gate of gateModules())
    for (const name of await modulesOf({ kernel, gate }))
      names.push(gate === gateModules()[0] ? name : `${gate.name}:${name}`);
  return names;
}

/** `loopanic kernel fetch ID`: the newest version that the catalogue's suite has, or the packages that its entry names. */
export async function kernelFetch(
  args: { id: string; verify: boolean; json: boolean },
  { signal }: Context,
): Promise<number> {
  const entry = await catalogueEntry(args.id);
  if (entry.origin === 'built') {
    const patches = entry.patches.map((name) => join(imagesDir, 'kernel-patches', name));
    return printKernel(
      args.json,
      await buildKernel({ from: entry.from, patches, id: args.id }, progressFor(), signal),
    );
  }
  return printKernel(
    args.json,
    await interruptible(fetchKernel(args.id, progressFor(), args.verify), signal),
  );
}

export type KernelAddArgs = Omit<AddRequest, 'made'> & { json: boolean };

/** `loopanic kernel add FILE...`: a kernel that is on disk already. */
export async function kernelAdd({ json, ...request }: KernelAddArgs): Promise<number> {
  return printKernel(json, await addKernel(request, progressFor()));
}

/** `loopanic kernel build --from ID --patch FILE`: a kernel with a patch to its core. */
export async function kernelBuild(
  args: { from: string; patch: string[]; id?: string | undefined; json: boolean },
  { signal }: Context,
): Promise<number> {
  const id = args.id ?? builtId(args.from, args.patch);
  if (args.id === undefined && args.patch.length === 0)
    throw new UsageError('bad-usage', 'kernel build: give --patch, or --id for one without');
  return printKernel(
    args.json,
    await buildKernel({ from: args.from, patches: args.patch, id }, progressFor(), signal),
  );
}

/** `loopanic kernel rm ID`. */
export async function kernelRemove(args: { id: string; json: boolean }): Promise<number> {
  await removeKernel(args.id);
  printResult(args.json, { id: args.id, removed: true }, () => [`${args.id}: removed`]);
  return EXIT.ok;
}

/** `loopanic kernel debuginfo ID`: what the analysis of dumps needs. */
export async function kernelDebugInfo(args: { id: string; json: boolean }): Promise<number> {
  const kernel = await ensureKernel(args.id, progressFor());
  const vmlinux = await ensureDebugInfo(kernel, progressFor());
  const { id, release, version } = kernel;
  printResult(args.json, { id, release, version, vmlinux }, () => [`${id}: ${vmlinux}`]);
  return EXIT.ok;
}

function printKernel(json: boolean, kernel: Kernel): number {
  const { id, origin, release, version, compiler, packages, profile } = kernel;
  const document = {
    id,
    origin,
    release,
    version,
    compiler,
    packages,
    unfit: profile.unfit,
    notes: profile.notes,
  };
  printResult(json, document, () => [
    `${id}: ${release} (${version})${compiler === null ? '' : `, modules built with ${compiler}`}`,
    ...packages.map(
      ({ name, version: of, signature }) => `  ${name} ${of}${signature ? `: ${signature}` : ''}`,
    ),
  ]);
  return EXIT.ok;
}

function yesNo(value: boolean | null): string {
  if (value === null) return '-';
  return value ? 'yes' : 'no';
}
