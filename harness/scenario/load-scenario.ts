import { readdir } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { UsageError } from '../base/errors.js';
import { isExecutable } from '../base/files.js';
import { suggestion } from '../base/nearest.js';
import { scenariosDir } from '../base/paths.js';
import { readYaml } from '../base/yaml-file.js';
import { type LoadedScenario, scenarioSchema } from './scenario-schema.js';

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
  const scenario = { name: basename(file, SUFFIX), ...(await readYaml(file, scenarioSchema)) };
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

/** Folder with the guest scripts of a workload: beside the scenario file, or one of loopanic's own. */
export async function workloadDir(name: string, beside = scenariosDir): Promise<string | undefined> {
  for (const base of [beside, scenariosDir]) {
    const dir = join(base, 'workloads', name);
    if (await isExecutable(join(dir, 'run'))) return dir;
  }
  return undefined;
}
