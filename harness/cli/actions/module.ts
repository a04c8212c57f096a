import { EXIT, interruptible, UsageError } from '../../base/errors.js';
import { bugOf, gateModules } from '../../bug/family.js';
import { ensureKernel } from '../../kernel/fetch.js';
import type { BuildOptions } from '../../module/build-options.js';
import { codeText } from '../../module/identity.js';
import { ensureModule, type Module, type NamedModule, nameModule, variants } from '../../module/module.js';
import { type Context, printResult, progressFor, table } from '../context.js';

/** `loopanic module ls`: what can stand in for each module of the family. */
export async function moduleList(args: { json: boolean }): Promise<number> {
  const rows: { id: string; of: string; summary: string }[] = [];
  for (const gate of gateModules()) {
    rows.push({ id: 'stock', of: gate.name, summary: "the kernel's own module, as it is" });
    for (const [id, { summary }] of Object.entries(await variants(gate)))
      rows.push({ id, of: gate.name, summary });
  }
  printResult(args.json, rows, () =>
    table([['OF', 'MODULE', 'SUMMARY'], ...rows.map((row) => [row.of, row.id, row.summary])]),
  );
  return EXIT.ok;
}

export interface ModuleBuildArgs extends BuildOptions {
  kernel: string;
  bug: string;
  names: string[];
  patch: string[];
  source?: string | undefined;
  ko?: string | undefined;
  name?: string | undefined;
  json: boolean;
}

/**
 * `loopanic module build --kernel ID`: builds variants (all of them if none is named) for one kernel, or a module of the user's under a
 * name.
 */
export async function moduleBuild(args: ModuleBuildArgs, { signal }: Context): Promise<number> {
  const own = ownModule(args);
  const progress = progressFor();
  const gate = bugOf(args.bug).module;
  const names = args.names.length > 0 ? args.names : Object.keys(await variants(gate));
  const kernel = await interruptible(ensureKernel(args.kernel, progress), signal);
  const place = { kernel, gate };
  const made: Module[] = [];
  if (own) made.push(await nameModule(own, place, progress, args, signal));
  else {
    // A builder that is named is asked to build, whatever is there.
    const anew = args.builder !== 'auto';
    for (const name of names) made.push(await ensureModule(name, place, progress, args, signal, anew));
  }
  const built = made.map(({ id, file, info, identity }) => ({
    id,
    kernel: kernel.id,
    release: kernel.release,
    file,
    ...info,
    ...identity,
  }));
  printResult(args.json, built, () => [
    ...table(built.map((row) => [row.id, row.kernel, row.srcversion ?? row.buildId ?? '-', row.file])),
    ...built.flatMap(({ id, source }) => (source.length > 0 ? [`${id}: made of ${source.join(', ')}`] : [])),
    ...built.flatMap((module) => {
      const text = codeText(module);
      return text === null ? [] : [`${module.id}: ${text}`];
    }),
  ]);
  return EXIT.ok;
}

function ownModule({ names, patch, source, ko, name }: ModuleBuildArgs): NamedModule | null {
  const from = [
    patch.length > 0 && { patches: patch },
    source !== undefined && { source },
    ko !== undefined && { ko },
  ].filter((entry) => entry !== false);
  const [only] = from;
  if (!only && name === undefined) return null;
  if (!only || from.length > 1 || name === undefined || names.length > 0)
    throw new UsageError(
      'bad-usage',
      'a module of your own takes --name and one of --patch, --source and --ko, and no names of variants',
    );
  return { name, from: only };
}
