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

/** Is it a fix? `no` as soon as one cell shows that it is none; `yes` only if all are clean. */
export function answerOf(run: RunDocument): 'yes' | 'no' | 'no answer' {
  const verdicts = testedCells(run).map(({ verdict }) => verdict);
  if (verdicts.some((verdict) => verdict === 'panics' || verdict === 'exposed')) return 'no';
  return verdicts.length > 0 && verdicts.every((verdict) => isDecided(verdict)) ? 'yes' : 'no answer';
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

/** `asked` is the module as it was given. */
export function answer(run: RunDocument, asked: string): Answer {
  const cells = testedCells(run);
  const [first] = cells;
  const info = first?.moduleInfo;
  const code = info ? codeText(info) : null;
  const patches = cells.flatMap(({ kernelInfo }) =>
    kernelInfo?.builtOf ? kernelInfo.packages.slice(1) : [],
  );
  const sources =
    info && info.source.length > 0 ? info.source : [...new Set(patches.map(({ name }) => name))];
  const kernels = [
    ...new Set(
      cells.map(
        ({ kernel, kernelInfo }) =>
          `${kernel} ${kernelInfo?.release ?? ''} (${kernelInfo?.version ?? 'unknown'})`,
      ),
    ),
  ];
  // It has a row of its own.
  const once = (text: string): string => (code === null ? text : text.replace(`; ${code}`, ''));
  const rows: Answer['rows'] = [
    ['what', sources.length > 0 ? sources.join(', ') : asked],
    ['kernel', kernels.join(', ')],
  ];
  for (const cell of cells) {
    const control = controlOf(run, cell);
    const name = cells.length > 1 ? `${cell.kernel} ${cell.module} ${cell.scenario}: ` : '';
    rows.push([
      'verdict',
      `${name}${[cell.verdict ?? 'none', proofText(cell)].filter(Boolean).join(', ')}: ${once(cell.reason)}`,
    ]);
    if (control)
      rows.push([
        'control',
        `${control.kernel} ${control.module} ${control.scenario}: ${control.verdict ?? 'none'}: ${control.reason}`,
      ]);
    for (const warning of cell.warnings) if (warning !== code) rows.push(['warning', warning]);
  }
  if (code !== null) rows.push(['code', code]);
  if (info)
    rows.push([
      'module',
      moduleText({ moduleInfo: { ...info, source: [], comparedWith: [], sameCodeAs: null } }),
    ]);
  rows.push([
    'by',
    `loopanic ${run.versions.loopanic}, ${run.host.accel}, ${run.versions.qemu}; run ${run.run}`,
  ]);
  const told = first && tellingTrial(first);
  if (first) rows.push(['repeat', repeatCommand(first, told)]);
  return {
    title: `${answerOf(run)}: ${asked} on ${first?.kernel ?? 'no kernel'}`,
    rows,
    uncovered: uncovered(run, asked),
  };
}

/** What the run says nothing of: other bugs whose gate the same module has, other bugs, other kernels. */
function uncovered(run: RunDocument, asked: string): Answer['uncovered'] {
  const cells = testedCells(run);
  const own = new Set(cells.map(({ scenarioDefinition }) => String(scenarioDefinition?.bug ?? DEFAULT_BUG)));
  const kernel = cells[0]?.kernel ?? '';
  const command = (...words: string[]): string =>
    ['npx loopanic validate', '--module', asked, ...words]
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
  for (const { id, module, shownBy } of allBugs())
    if (!own.has(id) && gates.has(module.name))
      found.push([`${id} (the same module)`, command('--kernel', kernel, '--scenario', shownBy)]);
  const others = allBugs().filter(({ id, module }) => !own.has(id) && !gates.has(module.name));
  if (others.length > 0)
    found.push([`${others.map(({ id }) => id).join(', ')} (of other modules)`, 'npx loopanic matrix family']);
  return found;
}

export function answerLines(run: RunDocument, asked: string): string[] {
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
export function answerMarkdown(run: RunDocument, asked: string): string {
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
