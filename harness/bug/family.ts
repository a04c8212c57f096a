import { readdirSync } from 'node:fs';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { UsageError } from '../base/errors.js';
import { suggestion } from '../base/nearest.js';
import type { Bug, GateModule, Target, Transport } from './bug.js';
import { DEFAULT_BUG } from './default-bug.js';

/** Every record of a kind, by id: to add one is to add its file to the kind's folder. */
async function records<T extends { id: string }>(name: string): Promise<ReadonlyMap<string, T>> {
  const folder = `${name}s`;
  const dir = fileURLToPath(new URL(`./${folder}/`, import.meta.url));
  const found = new Map<string, T>();
  for (const file of readdirSync(dir).sort())
    if (file.endsWith('.js')) {
      const exported = (await import(pathToFileURL(`${dir}${file}`).href)) as Record<string, T>;
      const record = exported[name];
      if (record === undefined) throw new Error(`${dir}${file} exports no ${name}`);
      found.set(record.id, record);
    }
  return found;
}

const bugs = await records<Bug>('bug');
const transports = await records<Transport>('transport');
const targets = await records<Target>('target');

function lookUp<T>(what: 'bug' | 'transport' | 'target', known: ReadonlyMap<string, T>, id: string): T {
  const record = known.get(id);
  if (record === undefined)
    throw new UsageError(`unknown-${what}`, `unknown ${what} ${id}${suggestion(id, [...known.keys()])}`);
  return record;
}

/** All bugs of the family, in the order of their names; the usual one first. */
export function allBugs(): Bug[] {
  return [...bugs.values()].sort((a, b) => Number(b.id === DEFAULT_BUG) - Number(a.id === DEFAULT_BUG));
}

/** Throws UsageError with the nearest names. */
export const bugOf = (id: string): Bug => lookUp('bug', bugs, id);
/** Throws UsageError with the nearest names. */
export const transportOf = (id: string): Transport => lookUp('transport', transports, id);
/** Throws UsageError with the nearest names. */
export const targetOf = (id: string): Target => lookUp('target', targets, id);

/** Modules that hold a gate: those that something can stand in for. */
export function gateModules(): GateModule[] {
  return [...new Map(allBugs().map(({ module }) => [module.name, module])).values()];
}

/** File name of a module's .ko. */
export function koName({ path }: GateModule): string {
  return path.replace(/.*\//, '');
}
