import { EXIT, interruptible, UsageError } from '../../base/errors.js';
import { ensureKernel } from '../../kernel/fetch.js';
import type { BuildOptions } from '../../module/build.js';
import { codeText } from '../../module/identity.js';
import { ensureModule, type Module, type NamedModule, nameModule, variants } from '../../module/module.js';
import { type Context, printResult, progressFor, table } from '../context.js';

/** `loopanic module ls`: what can stand in for libiscsi_tcp.ko. */
export async function moduleList(args: { json: boolean }): Promise<number> {
  const known = Object.entries(await variants()).map(([id, { summary }]) => ({ id, summary }));
  const rows = [{ id: 'stock', summary: "the kernel's own module, as it is" }, ...known];
  printResult(args.json, rows, () =>
    table([['MODULE', 'SUMMARY'], ...rows.map((row) => [row.id, row.summary])]),
  );
  return EXIT.ok;
}

export interface ModuleBuildArgs extends BuildOptions {
  kernel: string;
  names: string[];
  patch: string[];
  source?: string | undefined;
  ko?: string | undefined;
  name?: string | undefined;
  json: boolean;
}

/** `loopanic module build --kernel ID`: builds variants (all of them if none is named) for one kernel, or a module of the user's under a name. */
export async function moduleBuild(args: ModuleBuildArgs, { signal }: Context): Promise<number> {
  const own = ownModule(args);
  const progress = progressFor();
  const names = args.names.length > 0 ? args.names : Object.keys(await variants());
  const kernel = await interruptible(ensureKernel(args.kernel, progress), signal);
  const made: Module[] = [];
  if (own) made.push(await nameModule(own, kernel, progress, args, signal));
  else {
    // A builder that is named is asked to build, whatever is there.
    const anew = args.builder !== 'auto';
    for (const name of names) made.push(await ensureModule(name, kernel, progress, args, signal, anew));
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
