import { readdir } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { UsageError } from '../base/errors.js';
import { isExecutable } from '../base/files.js';
import { suggestion } from '../base/nearest.js';
import { scenariosDir } from '../base/paths.js';
import { type Inheritance, readYaml } from '../base/yaml-file.js';
import { bugOf, transportOf } from '../bug/family.js';
import { type LoadedScenario, type Scenario, type ScenarioFile, scenarioSchema } from './scenario-schema.js';

const SUFFIX = '.yaml';

/** Names of the scenarios that come with loopanic. */
export async function scenarioNames(): Promise<string[]> {
  const files = await readdir(scenariosDir);
  return files
    .filter((file) => file.endsWith(SUFFIX) && !file.endsWith('.matrix.yaml'))
    .map((file) => file.slice(0, -SUFFIX.length))
    .sort();
}

/** Loads a scenario by name, or by path if it has a slash or ends in .yaml. Throws UsageError. */
export async function loadScenario(nameOrPath: string): Promise<LoadedScenario> {
  const isPath = nameOrPath.includes('/') || nameOrPath.endsWith(SUFFIX);
  const names = await scenarioNames();
  if (!isPath && !names.includes(nameOrPath))
    throw new UsageError(
      'unknown-scenario',
      `unknown scenario ${nameOrPath}${suggestion(nameOrPath, names)}`,
    );
  const file = isPath ? nameOrPath : join(scenariosDir, `${nameOrPath}${SUFFIX}`);
  const scenario = fillIn(basename(file, SUFFIX), file, await readYaml(file, scenarioSchema, LIKE, A_MATRIX));
  if (!/^[A-Za-z0-9][\w.-]*$/.test(scenario.name))
    throw new UsageError(
      'bad-name',
      `${file}: a scenario's file name may hold letters, digits, '.', '_' and '-' only`,
    );
  const workload = await workloadDir(scenario.workload.name, isPath ? dirname(resolve(file)) : scenariosDir);
  if (!workload) {
    const known = await readdir(join(scenariosDir, 'workloads'));
    throw new UsageError(
      'unknown-workload',
      `${file}: workload.name: no workload ${scenario.workload.name} (a folder with an executable 'run')${suggestion(scenario.workload.name, known)}`,
    );
  }
  return { scenario, workloadDir: workload };
}

const A_MATRIX = { kernels: 'is a matrix, not a scenario: loopanic matrix takes it' };

/** A scenario file may say `like: NAME`, or name another file by its path from its own folder. */
const LIKE: Inheritance = {
  key: 'like',
  find: async (name, file) => {
    if (name.includes('/') || name.endsWith(SUFFIX)) return resolve(dirname(file), name);
    const names = await scenarioNames();
    if (!names.includes(name))
      throw new UsageError(
        'unknown-scenario',
        `${file}: like: unknown scenario ${name}${suggestion(name, names)}`,
      );
    return join(scenariosDir, `${name}${SUFFIX}`);
  },
};

/** What a scenario file leaves to its bug, and what older files say in other words. Throws UsageError. */
function fillIn(name: string, file: string, data: ScenarioFile): Scenario {
  const refuse = (why: string): UsageError => new UsageError('bad-file', `${file}: ${why}`);
  const { target: said, iscsi, workload, ...rest } = data;
  const bug = bugOf(data.bug);
  const transport = transportOf(bug.transport);
  // `target` once said where it is.
  const isPlace = said === 'loopback' || said === 'peer';
  const target = (isPlace ? undefined : said) ?? bug.targets[0] ?? '';
  if (!bug.targets.includes(target))
    throw refuse(`target: ${bug.id} has no target ${target}${suggestion(target, bug.targets)}`);
  if (Object.keys(iscsi).length > 0 && transport.id !== 'iscsi')
    throw refuse(`iscsi: the transport of ${bug.id} is ${transport.id}: say transport`);
  const settings: Record<string, string> = {};
  for (const [key, { values }] of Object.entries(transport.parameters)) settings[key] = values[0] ?? '';
  for (const [section, given] of [
    ['iscsi', iscsi],
    ['transport', data.transport],
  ] as const)
    for (const [key, value] of Object.entries(given)) {
      const known = Object.hasOwn(transport.parameters, key) ? transport.parameters[key]?.values : undefined;
      if (!known)
        throw refuse(
          `${section}.${key}: ${transport.id} has no such setting${suggestion(key, Object.keys(transport.parameters))}`,
        );
      if (!known.includes(value)) throw refuse(`${section}.${key}: must be one of ${known.join(', ')}`);
      settings[key] = value;
    }
  const { minMergedPerCycle, minHeaderReadsPerCycle, ...work } = workload;
  const asked: Record<string, number> = {
    ...(minMergedPerCycle === undefined ? {} : { merged: minMergedPerCycle }),
    ...(minHeaderReadsPerCycle === undefined ? {} : { reads: minHeaderReadsPerCycle }),
    ...workload.minPerCycle,
  };
  for (const key of Object.keys(asked))
    if (!bug.counters.some((counter) => counter.key === key))
      throw refuse(
        `workload.minPerCycle.${key}: ${bug.id} counts no such thing${suggestion(
          key,
          bug.counters.map((counter) => counter.key),
        )}`,
      );
  const minPerCycle = Object.fromEntries(
    bug.counters.map(({ key, least }) => [key, asked[key] ?? least(data.filesystem.allocationGroups)]),
  );
  return {
    name,
    ...rest,
    target,
    where: isPlace ? said : data.where,
    transport: settings,
    workload: { ...work, minPerCycle },
  };
}

/** Folder with the guest scripts of a workload: beside the scenario file, or one of loopanic's own. */
export async function workloadDir(name: string, beside = scenariosDir): Promise<string | undefined> {
  for (const base of [beside, scenariosDir]) {
    const dir = join(base, 'workloads', name);
    if (await isExecutable(join(dir, 'run'))) return dir;
  }
  return undefined;
}
