import type { Bug } from '../../bug/bug.js';
import { allBugs, bugOf, targetOf, transportOf } from '../../bug/family.js';
import { variants } from '../../module/module.js';
import { loadScenario, scenarioNames } from '../../scenario/load-scenario.js';
import { printResult, table } from '../context.js';

/** What `bug show` tells, as plain data. */
async function describe(bug: Bug) {
  const loaded = await Promise.all((await scenarioNames()).map((name) => loadScenario(name)));
  const { ports, disk, parameters, ...transport } = transportOf(bug.transport);
  return {
    id: bug.id,
    summary: bug.summary,
    sources: bug.sources,
    remedies: bug.remedies,
    shownBy: bug.shownBy,
    readers: bug.readers?.map(({ words }) => words) ?? [],
    leak: bug.leak,
    gateFunctions: bug.gateFunctions,
    sought:
      bug.copy === 'whole-objects'
        ? `a usercopy exposure of two or more whole objects of a kmalloc cache, in ${bug.readIn}`
        : `a usercopy exposure of bytes across the end of a compound page ("page alloc"), in ${bug.readIn}`,
    module: bug.module,
    variants: Object.entries(await variants(bug.module)).map(([id, { summary }]) => ({ id, summary })),
    control: bug.control,
    transport: { id: transport.id, summary: transport.summary, ports, disk, parameters },
    targets: bug.targets.map((id) => {
      const { summary, receiver } = targetOf(id);
      return { id, summary, receiver: receiver.words };
    }),
    counters: bug.counters.map(({ key, words }) => ({ key, words })),
    scenarios: loaded
      .filter(({ scenario }) => scenario.bug === bug.id)
      .map(({ scenario }) => ({ name: scenario.name, summary: scenario.summary })),
  };
}

/** `loopanic bug ls`: the family. */
export async function bugList(args: { json: boolean }): Promise<number> {
  const rows = allBugs().map(({ id, summary, module, transport, targets, control }) => ({
    id,
    summary,
    module: module.name,
    transport,
    targets,
    control,
  }));
  printResult(args.json, rows, () =>
    table([
      ['BUG', 'MODULE', 'TARGETS', 'CONTROL', 'SUMMARY'],
      ...rows.map((row) => [row.id, row.module, row.targets.join(' '), row.control, row.summary]),
    ]),
  );
  return 0;
}

/** `loopanic bug show ID`: all that is known of one bug. Throws UsageError for an unknown id. */
export async function bugShow(args: { id: string; json: boolean }): Promise<number> {
  const bug = await describe(bugOf(args.id));
  const { transport } = bug;
  const settings = Object.entries(transport.parameters).map(([key, { values, summary }]) => [
    `  ${key}`,
    values.join(' | '),
    summary,
  ]);
  printResult(args.json, bug, () => [
    `${bug.id}: ${bug.summary}`,
    ...table([
      ['gate', `${bug.module.name} (${bug.module.dir}/${bug.module.sources[0]})`],
      ['leak', bug.leak],
      ['read by', `a probe on ${bug.gateFunctions.join(', or ')}`],
      ['sought', bug.sought],
      [
        'transport',
        `${transport.id}: ${transport.summary}; port ${transport.ports[0]}, /dev/${transport.disk}`,
      ],
      ...bug.targets.map(({ id, summary, receiver }) => ['target', `${id}: ${summary}; read by ${receiver}`]),
      ['control', bug.control],
      ...bug.variants.map(({ id, summary }) => ['variant', `${id}: ${summary}`]),
      ...bug.counters.map(({ key, words }) => ['counted', `${key}: ${words}`]),
      ...bug.scenarios.map(({ name, summary }) => ['scenario', `${name}: ${summary}`]),
      ...bug.readers.map((words) => ['also read by', words]),
      ...bug.remedies.map((remedy) => ['remedy', remedy]),
      ...bug.sources.map((source) => ['source', source]),
    ]),
    ...(settings.length > 0 ? ['settings of the transport, the usual one first:', ...table(settings)] : []),
  ]);
  return 0;
}
