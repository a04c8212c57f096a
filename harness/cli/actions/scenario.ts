import { stringify } from 'yaml';
import { loadScenario, scenarioNames } from '../../scenario/load-scenario.js';
import { printResult, table } from '../context.js';

/** `loopanic scenario ls`. */
export async function scenarioList(args: { json: boolean }): Promise<number> {
  const loaded = await Promise.all((await scenarioNames()).map((name) => loadScenario(name)));
  const rows = loaded.map(({ scenario: { name, summary, workload } }) => ({
    name,
    summary,
    workload: workload.name,
  }));
  printResult(args.json, rows, () =>
    table([['SCENARIO', 'WORKLOAD', 'SUMMARY'], ...rows.map((row) => [row.name, row.workload, row.summary])]),
  );
  return 0;
}

/** `loopanic scenario show NAME|FILE`: a scenario with all defaults filled in. */
export async function scenarioShow(args: { name: string; json: boolean }): Promise<number> {
  const { scenario } = await loadScenario(args.name);
  printResult(args.json, scenario, () => [stringify(scenario).trimEnd()]);
  return 0;
}
