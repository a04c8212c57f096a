import { codeText } from '../module/identity.js';
import type { RunCell, RunDocument, RunTrial } from '../results/run-schema.js';
import { isRefuted, isRetryable, percent } from '../verdict/cell-verdict.js';
import { count } from '../verdict/gate-proof.js';
import { isDecided } from '../verdict/verdict.js';

/** A cell's name, for people and for globs. */
export function cellName({
  kernel,
  module,
  scenario,
}: Pick<RunCell, 'kernel' | 'module' | 'scenario'>): string {
  return `${kernel}+${module}+${scenario}`;
}

/** True if the verdict is another than the expected one. A cell without a verdict contradicts nothing. */
export function contradicts({
  expected,
  verdict,
  statistics,
}: Pick<RunCell, 'expected' | 'verdict' | 'statistics'>): boolean {
  if (expected === undefined || !isDecided(verdict) || expected.verdict === verdict) return false;
  return !isOpen({ expected, verdict, statistics });
}

/**
 * True if what was expected is neither seen nor refuted: it leaks, and may yet panic; or it was to leak, and could not be read.
 */
function isOpen({
  expected,
  verdict,
  statistics,
}: Pick<RunCell, 'expected' | 'verdict' | 'statistics'>): boolean {
  if (expected?.verdict === 'panics') return verdict === 'exposed';
  return expected?.verdict === 'exposed' && verdict === 'clean' && !statistics?.gate;
}

/** The run that a cell is of: whether a panic is fine of which nobody said that it would come. */
export type Asked = Pick<RunDocument, 'request'>;

/** True if a cell panicked or leaked of which nothing was expected, and that is no positive control. */
export function isUnexpectedPanic({ expected, verdict, isControl }: RunCell, { request }: Asked): boolean {
  const bad = verdict === 'panics' || verdict === 'exposed';
  return bad && expected === undefined && !isControl && !request.noExpectationOk;
}

/**
 * What a cell means in the morning: `ok` as expected, or decided where nothing was; `contradicted`, a panic among them of which nothing
 * was expected; `undecided`.
 */
export type CellStanding = 'ok' | 'contradicted' | 'undecided';

export function standing(cell: RunCell, asked: Asked): CellStanding {
  if (contradicts(cell) || isUnexpectedPanic(cell, asked)) return 'contradicted';
  if (isOpen(cell)) return 'undecided';
  return isDecided(cell.verdict) ? 'ok' : 'undecided';
}

/** What was expected instead of a contradicting verdict: `expected clean`. */
export function expectedInstead({ expected }: Pick<RunCell, 'expected'>): string {
  return expected ? `expected ${expected.verdict}` : 'no expectation allows it';
}

/** A sign that needs no colour. */
export const VERDICT_SIGN = { panics: '✖', exposed: '◐', clean: '✔', inconclusive: '?', void: '∅' } as const;

const CONTRADICTED_SIGN = '‼';

export function signOf(cell: RunCell, asked: Asked): string {
  if (standing(cell, asked) === 'contradicted') return CONTRADICTED_SIGN;
  return cell.verdict === null ? '…' : VERDICT_SIGN[cell.verdict];
}

/** Cells that somebody has to look at: contradictions, then those without a verdict, then what a reader must know before trusting one. */
export function needsLook(run: Pick<RunDocument, 'cells' | 'request'>): RunCell[] {
  const rank = (cell: RunCell): number => ['contradicted', 'undecided', 'ok'].indexOf(standing(cell, run));
  return run.cells
    .filter((cell) => standing(cell, run) !== 'ok' || cell.warnings.length > 0)
    .sort((a, b) => rank(a) - rank(b));
}

/** What was run: `matrix nightly`, or the command. */
export function titleOf({ command, matrix }: Pick<RunDocument, 'command' | 'matrix'>): string {
  return matrix ? `${command} ${matrix.name}` : command;
}

/** `5 of 5 (57 % to 100 %)`: panics of counted boots, with the 95 % interval. */
export function rateText({ statistics }: Pick<RunCell, 'statistics'>): string {
  if (!statistics?.rate) return '–';
  const { panicked, counted, rate } = statistics;
  return `${panicked} of ${counted} (${percent(rate.low)} to ${percent(rate.high)})`;
}

/** Largest share of such runs that call a module clean which is as bad as the control, for people; `read`: none, the gate was. */
export function missText({
  statistics,
  verdict,
  provenBy,
}: Pick<RunCell, 'statistics' | 'verdict' | 'provenBy'>): string {
  if (provenBy === 'reading') return 'read';
  return verdict === 'clean' && statistics?.missChance != null ? percent(statistics.missChance) : '–';
}

/** Why a run is not whole, or null: what it does not show may be anything. */
export function unfinished({ finishedAt, interrupted, cells }: RunDocument): string | null {
  if (finishedAt === null) return 'the run is not finished: it goes on, or was killed';
  if (interrupted) return 'the run was interrupted';
  return cells.length === 0 ? 'the run has no cell' : null;
}

/** One line for a run: how many cells stand how. */
export function totals(run: RunDocument): string {
  const { cells, skipped } = run;
  const count = (wanted: CellStanding): number =>
    cells.filter((cell) => standing(cell, run) === wanted).length;
  const parts = [
    `${cells.length} cells`,
    `${count('ok')} ok`,
    `${count('contradicted')} contradicted`,
    `${count('undecided')} undecided`,
  ];
  return [
    ...parts,
    ...(skipped.length > 0
      ? [`${skipped.length} ${skipped.length === 1 ? 'kernel' : 'kernels'} skipped`]
      : []),
  ].join(', ');
}

/** What was tested: the module's hash, ids and sources, and whose code it has. What the first run.json files do not tell is left out. */
export function moduleText({ moduleInfo }: Pick<RunCell, 'moduleInfo'>): string {
  if (moduleInfo === null) return '–';
  const { sha256, buildId, srcversion, source } = moduleInfo;
  return [
    [
      ...(sha256 === '' ? [] : [`sha256 ${sha256}`]),
      ...(buildId === null ? [] : [`build id ${buildId}`]),
      ...(srcversion === null ? [] : [`srcversion ${srcversion}`]),
    ].join(', '),
    ...(source.length > 0 ? [`made of ${source.join(', ')}`] : []),
    ...[codeText(moduleInfo) ?? []].flat(),
  ].join('; ');
}

/** The trial that a cell's verdict is best shown by: a panic; of a clean cell a survivor; else what stood in the way. */
export function tellingTrial({ trials, verdict }: Pick<RunCell, 'trials' | 'verdict'>): RunTrial | undefined {
  const first = (wanted: (trial: RunTrial) => boolean): RunTrial | undefined => trials.find(wanted);
  return (
    first((trial) => trial.outcome === 'reproduced' && !isRefuted(trial)) ??
    (verdict === 'clean' ? first(({ outcome }) => outcome === 'survived') : undefined) ??
    (verdict === 'exposed' ? first(({ gate }) => (gate?.leaked ?? 0) > 0) : undefined) ??
    first((trial) => trial.outcome !== 'survived' && !isRetryable(trial)) ??
    first(({ outcome }) => outcome !== 'survived') ??
    trials.at(-1)
  );
}

/** The command that repeats one trial; the first run.json files do not tell it. */
export function repeatCommand({ repeat }: Pick<RunCell, 'repeat'>, trial: RunTrial | undefined): string {
  const word = (text: string): string =>
    /^[\w./@+:=,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
  if (repeat.length === 0) return '–';
  const seed = trial ? ['--seed', String(trial.seed)] : [];
  return ['npx loopanic', ...[...repeat, ...seed].map(word)].join(' ');
}

/** What went through the gate, of all boots with a whole reading: `0 of 1,537 leaked`; `–` where it was not read. */
export function gateText({ statistics }: Pick<RunCell, 'statistics'>): string {
  const gate = statistics?.gate;
  if (!gate) return '–';
  return gate.cutShort
    ? `${count(gate.leaked)} leaked`
    : `${count(gate.leaked)} of ${count(Math.max(gate.slabSegments, gate.leaked))} leaked`;
}

/** How well a clean cell is proven, in a word or two; empty for others. */
export function proofText({ verdict, provenBy }: Pick<RunCell, 'verdict' | 'provenBy'>): string {
  if (verdict !== 'clean' || provenBy === null) return '';
  return { reading: 'gate read', statistics: 'by odds', survival: 'it survived', panic: '' }[provenBy];
}
