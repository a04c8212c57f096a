import { harmless } from '../base/harmless.js';
import { shellWord } from '../base/shell-word.js';
import { DEFAULT_BUG } from '../bug/default-bug.js';
import { allBugs } from '../bug/family.js';
import { codeText } from '../module/identity.js';
import type { RunCell, RunDocument } from '../results/run-schema.js';
import { percent } from '../verdict/cell-verdict.js';
import { isDecided } from '../verdict/verdict.js';
import { moduleText, proofText, repeatCommand, tellingTrial } from './cell-state.js';
import { cellText, codeSpan } from './markdown.js';

/** The cells of a validation that are no controls: what was asked about. */
export function testedCells({ cells }: RunDocument): RunCell[] {
  return cells.filter(({ isControl }) => !isControl);
}

const controlOf = (run: RunDocument, { control }: RunCell): RunCell | undefined =>
  run.cells.find(
    (cell) =>
      cell.kernel === control?.kernel && cell.module === control.module && cell.scenario === control.scenario,
  );

/**
 * Is it a fix? `no` as soon as one cell shows that it is none; `yes` only if all are clean. On a kernel whose core was patched, a module that is made to let
 * slab pages through goes on to do so: that alone is no answer.
 */
export function answerOf(run: RunDocument): 'yes' | 'no' | 'no answer' {
  const cells = testedCells(run);
  const isOpenByDesign = ({ kernelInfo, module }: RunCell): boolean =>
    kernelInfo?.builtOf != null && module !== 'stock';
  if (
    cells.some((cell) => cell.verdict === 'panics' || (cell.verdict === 'exposed' && !isOpenByDesign(cell)))
  )
    return 'no';
  return cells.length > 0 && cells.every(({ verdict }) => verdict === 'clean') ? 'yes' : 'no answer';
}

/** The last line of a validation: is it a fix, the verdict with its numbers, and what was tested. */
export function summary(run: RunDocument): string {
  const { confidence, request } = run;
  const cells = testedCells(run);
  const telling =
    cells.find(({ verdict }) => verdict === 'panics' || verdict === 'exposed') ??
    cells.find(({ verdict }) => !isDecided(verdict)) ??
    cells[0];
  const control = telling && controlOf(run, telling);
  const rate = control?.statistics?.rate;
  const [k, n] = [control?.statistics?.panicked ?? 0, control?.statistics?.counted ?? 0];
  const interval =
    rate && telling?.provenBy !== 'reading'
      ? ` (95 % interval ${percent(rate.low)} to ${percent(rate.high)})`
      : '';
  const code = telling?.moduleInfo ? codeText(telling.moduleInfo) : null;
  const toldAlready = code !== null && telling?.reason.includes(code) ? `; ${code}` : '';
  const where = cells.length > 1 ? ` (${telling?.scenario})` : '';
  return `${answerOf(run)}: ${telling?.module} on ${telling?.kernel}${where}: ${telling?.verdict ?? 'no verdict'}: ${telling?.reason}; positive control ${control?.module}: ${k} of ${n} boots panicked${interval}${confidence === null || request.byReading ? '' : `; confidence asked for: ${percent(confidence)}`}${telling?.moduleInfo ? `; tested: ${moduleText(telling).replace(toldAlready, '')}` : ''}`;
}

/** What a validation rests on, in rows of a name and a text: what an engineer pastes into a review. */
export interface Answer {
  title: string;
  rows: [name: string, text: string][];
  /** Commands for what it does not cover. */
  uncovered: [what: string, command: string][];
}

/** What was given to a validation: a module, or a git tree with commits of it. */
export interface Asked {
  module?: string | undefined;
  git?: string | undefined;
  rev?: string | undefined;
  /** The kernel that was asked for; with `buildKernel` others were built of it. */
  kernel?: string | undefined;
  buildKernel?: boolean | undefined;
  /** What a range of commits changes beside the module. */
  elsewhere?: readonly string[] | undefined;
}

const optionsOf = ({ module, git, rev, buildKernel }: Asked): string[] => [
  ...(buildKernel ? ['--build-kernel'] : []),
  ...(module === undefined ? [] : ['--module', module]),
  ...(git === undefined ? [] : ['--git', git]),
  ...(rev === undefined ? [] : ['--rev', rev]),
];

/** What `asked` turned out to be. */
export function answer(run: RunDocument, asked: Asked): Answer {
  const cells = testedCells(run);
  const [first] = cells;
  const name = asked.module ?? `${asked.git}${asked.rev === undefined ? '' : ` ${asked.rev}`}`;
  const kernelText = ({ kernel, kernelInfo }: RunCell): string =>
    `${kernel} ${kernelInfo?.release ?? ''} (${kernelInfo?.version ?? 'unknown'})`;
  const rows: Answer['rows'] = [['kernel', [...new Set(cells.map(kernelText))].join(', ')]];
  const modules = [...new Set(cells.map(moduleName))];
  for (const module of modules) rows.push(...moduleRows(cells.filter((cell) => moduleName(cell) === module)));
  const isBad = ({ verdict }: RunCell): boolean => verdict === 'panics' || verdict === 'exposed';
  // By the order of the commits, whatever scenario shows it.
  const bad = modules.flatMap((module) => cells.filter((cell) => moduleName(cell) === module)).find(isBad);
  if (asked.git !== undefined && bad && first && !isBad(first)) rows.push(['first bad', whatText(bad)]);
  const controls = cells.flatMap((cell) => controlOf(run, cell) ?? []);
  for (const control of new Set(controls))
    rows.push([
      'control',
      `${control.kernel} ${control.module} ${control.scenario}: ${control.verdict ?? 'none'}: ${control.reason}`,
    ]);
  const { versions, host } = run;
  rows.push(['by', `loopanic ${versions.loopanic}, ${host.accel}, ${versions.qemu}; run ${run.run}`]);
  const telling = bad ?? first;
  if (telling) rows.push(['repeat', repeatCommand(telling, tellingTrial(telling))]);
  return {
    title: `${answerOf(run)}: ${name} on ${first?.kernel ?? 'no kernel'}`,
    rows,
    uncovered: uncovered(run, asked),
  };
}

const moduleName = ({ kernel, module }: RunCell): string => `${kernel} ${module}`;

/** What was tested, in words: patches with their subjects, a commit, or a module's name; of a kernel that was built, with which patches. */
function whatText({ kernel, kernelInfo, module, moduleInfo }: RunCell): string {
  const patches = kernelInfo?.builtOf ? kernelInfo.packages.slice(1).map(({ name }) => name) : [];
  if (patches.length > 0) return `${kernel}, built with ${patches.join(', ')}; its module: ${module}`;
  return moduleInfo && moduleInfo.source.length > 0 ? moduleInfo.source.join(', ') : module;
}

/** Of one module, in one scenario or several. */
function moduleRows(cells: readonly RunCell[]): Answer['rows'] {
  const [first] = cells;
  if (!first) return [];
  const { moduleInfo } = first;
  const code = moduleInfo && codeText(moduleInfo);
  // It has a row of its own.
  const once = (text: string): string => (code === null ? text : text.replace(`; ${code}`, ''));
  const rows: Answer['rows'] = [['what', whatText(first)]];
  for (const cell of cells) {
    const where = cells.length > 1 ? `${cell.scenario}: ` : '';
    const verdict = [cell.verdict ?? 'none', proofText(cell)].filter(Boolean).join(', ');
    rows.push(['verdict', `${where}${verdict}: ${once(cell.reason)}`]);
    for (const warning of cell.warnings) if (warning !== code) rows.push(['warning', `${where}${warning}`]);
  }
  if (code !== null) rows.push(['code', code]);
  if (moduleInfo)
    rows.push([
      'module',
      moduleText({ moduleInfo: { ...moduleInfo, source: [], comparedWith: [], sameCodeAs: null } }),
    ]);
  return rows;
}

/** What the run says nothing of: other bugs whose gate the same module has, other bugs, other kernels. */
function uncovered(run: RunDocument, asked: Asked): Answer['uncovered'] {
  const cells = testedCells(run);
  const own = new Set(cells.map(({ scenarioDefinition }) => String(scenarioDefinition?.bug ?? DEFAULT_BUG)));
  const kernel = asked.kernel ?? cells[0]?.kernel ?? '';
  const command = (...words: string[]): string =>
    ['npx loopanic validate', ...optionsOf(asked), ...words]
      .map((word, index) => (index === 0 ? word : shellWord(word)))
      .join(' ');
  const gates = new Set(
    [...own].flatMap((id) =>
      allBugs()
        .filter((bug) => bug.id === id)
        .map(({ module }) => module.name),
    ),
  );
  const found: Answer['uncovered'] = [['other kernels', command('--kernel', 'ID')]];
  const { elsewhere = [] } = asked;
  if (elsewhere.length > 0)
    found.unshift([
      `what the range changes elsewhere (${elsewhere.slice(0, 5).join(', ')}${elsewhere.length > 5 ? `, and ${elsewhere.length - 5} more files` : ''})`,
      'npx loopanic kernel build --patch …, or kernel add DIR',
    ]);
  if (asked.buildKernel)
    found.unshift([
      'whether this kernel needs the patches at all',
      `npx loopanic validate --kernel ${shellWord(kernel)} --module stock`,
    ]);
  for (const { id, module, shownBy } of allBugs())
    if (!own.has(id) && gates.has(module.name))
      found.push([`${id} (the same module)`, command('--kernel', kernel, '--scenario', shownBy)]);
  const others = allBugs().filter(({ id, module }) => !own.has(id) && !gates.has(module.name));
  if (others.length > 0)
    found.push([`${others.map(({ id }) => id).join(', ')} (of other modules)`, 'npx loopanic matrix family']);
  return found;
}

export function answerLines(run: RunDocument, asked: Asked): string[] {
  const { title, rows, uncovered } = answer(run, asked);
  const all = [
    ...rows,
    ...uncovered.map(([what, command]) => ['not covered', `${what}: ${command}`] as const),
  ];
  let last = '';
  return [
    title,
    ...all.map(([name, text]) => {
      const shown = name === last ? '' : name;
      last = name;
      return `  ${shown.padEnd(11)}  ${text}`;
    }),
  ];
}

/** For a mail or a merge request. */
export function answerMarkdown(run: RunDocument, asked: Asked): string {
  const { title, rows, uncovered } = answer(run, asked);
  const isCode = (name: string): boolean => name === 'repeat';
  return [
    `**${cellText(title)}**`,
    '',
    '| | |',
    '|---|---|',
    ...rows.map(
      ([name, text]) =>
        `| ${name} | ${isCode(name) ? codeSpan(text).replaceAll('|', '\\|') : cellText(text)} |`,
    ),
    '',
    'Not covered:',
    '',
    ...uncovered.map(([what, command]) => `- ${cellText(what)}: ${codeSpan(command)}`),
    '',
  ]
    .map(harmless)
    .join('\n');
}
