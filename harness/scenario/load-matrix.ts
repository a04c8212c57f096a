import { readdir } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import picomatch from 'picomatch';
import { UsageError } from '../base/errors.js';
import { exists } from '../base/files.js';
import { suggestion } from '../base/nearest.js';
import { isFile, scenariosDir } from '../base/paths.js';
import { readYaml } from '../base/yaml-file.js';
import { type Expectation, type KnownNames, type MatrixFile, matrixSchemaFor } from './matrix-schema.js';

/** One cell of a matrix, by names. */
export interface MatrixCell {
  kernel: string;
  module: string;
  scenario: string;
  expected?: { verdict: Expectation; why: string };
  /** It is the positive control of cells of its matrix, run or not: it must panic. */
  isControl?: boolean;
  /** Index, among the run's cells, of its own positive control. */
  control?: number;
}

export interface Matrix {
  name: string;
  cells: MatrixCell[];
  /** Kernels that the file asks for and that are not in it now, and why. */
  skipped: { kernel: string; why: string }[];
}

/** What a kernel's own module is expected to show, if anybody said so. */
export type StockExpectation = (kernel: string) => { verdict: Expectation; why: string } | undefined;

/** Narrows a matrix down. */
export interface MatrixChoice {
  known: KnownNames;
  /** Kernels on this host, which `all` stands for. */
  present: readonly string[];
  /** Only these kernels. */
  kernels?: readonly string[] | undefined;
  /** Only cells whose `kernel+module+scenario` one of these globs matches. */
  only?: readonly string[] | undefined;
  stock: StockExpectation;
}

/** The scenario that `stock` expectations of the catalogue are about. */
const STOCK_SCENARIO = 'xfs-loopback';

const SUFFIX = '.matrix.yaml';

/** Names of the matrices that come with loopanic. */
export async function matrixNames(): Promise<string[]> {
  const files = await readdir(scenariosDir);
  return files
    .filter((file) => file.endsWith(SUFFIX))
    .map((file) => file.slice(0, -SUFFIX.length))
    .sort();
}

/** Path of a matrix file: of one of loopanic's own by its name, of any other as it is given. Throws UsageError with the nearest names. */
export async function matrixFile(nameOrPath: string): Promise<string> {
  if (isFile(nameOrPath) || (await exists(nameOrPath))) return nameOrPath;
  const names = await matrixNames();
  if (!names.includes(nameOrPath))
    throw new UsageError('unknown-matrix', `unknown matrix ${nameOrPath}${suggestion(nameOrPath, names)}`);
  return join(scenariosDir, `${nameOrPath}${SUFFIX}`);
}

const A_SCENARIO = { workload: 'is a scenario, not a matrix: loopanic run takes it' };

/**
 * Loads a matrix file and multiplies it out: kernels × modules × scenarios and what is included, in the file's order, each with its
 * expectation and its positive control. Throws UsageError.
 */
export async function loadMatrix(file: string, choice: MatrixChoice): Promise<Matrix> {
  const data = atHome(
    await readYaml(file, matrixSchemaFor(choice.known), undefined, A_SCENARIO),
    dirname(resolve(file)),
  );
  const listed = listedKernels(data, choice.known);
  const kernels = chosenKernels(file, data, choice, listed);
  // Of all kernels: which cells are controls must not depend on what is run now.
  const all = listed.flatMap((kernel) => cellsOf(data, kernel, choice.stock));
  const controlFor = new Map(all.map((cell) => [cell, controlOf(cell, data)]));
  const controlNames = new Set(
    [...controlFor.values()].flatMap((control) => (control ? [nameOf(control)] : [])),
  );
  const cells = kernels.flatMap((kernel) => all.filter((cell) => cell.kernel === kernel));
  if (cells.length === 0)
    throw new UsageError(
      'no-cell',
      kernels.length === 0
        ? `${file}: kernels: all, and no kernel is on this host: 'loopanic setup' fetches one`
        : `${file}: leaves out every cell of ${kernels.join(', ')} (exclude)`,
    );
  const wanted = narrow(file, cells, choice.only);
  for (const cell of [...wanted]) {
    const control = controlFor.get(cell);
    // A control is what others rest on: it rests on nothing.
    if (!control || controlNames.has(nameOf(cell))) continue;
    const same = (other: MatrixCell): boolean => nameOf(other) === nameOf(control);
    if (!wanted.some(same)) wanted.push(all.find(same) ?? control);
    cell.control = wanted.findIndex(same);
  }
  for (const cell of wanted) if (controlNames.has(nameOf(cell))) cell.isControl = true;
  const name = basename(file).replace(/\.matrix\.yaml$|\.yaml$/, '');
  return { name, cells: wanted, skipped: skippedKernels(file, data, choice, wanted) };
}

/** Paths in a file are relative to its folder, wherever it is read from. */
function atHome(data: MatrixFile, home: string): MatrixFile {
  const place = (id: string): string => (isFile(id) ? resolve(home, id) : id);
  const settle = <E extends { module?: string | undefined; scenario?: string | undefined }>(entry: E): E => ({
    ...entry,
    ...(entry.module === undefined ? {} : { module: place(entry.module) }),
    ...(entry.scenario === undefined ? {} : { scenario: place(entry.scenario) }),
  });
  return {
    ...data,
    modules: data.modules.map(place),
    scenarios: data.scenarios.map(place),
    include: data.include.map(settle),
    exclude: data.exclude.map(settle),
    expect: data.expect.map(settle),
    controls: data.controls.map((entry) => settle({ ...entry, of: settle(entry.of) })),
  };
}

/** The file's kernels, those that are only included with cells of their own among them; all: every one that is known. */
function listedKernels(data: MatrixFile, known: KnownNames): string[] {
  const included = data.include.flatMap(({ kernel }) => kernel ?? []);
  return [...new Set([...(data.kernels === 'all' ? known.kernels : data.kernels), ...included])];
}

/** Those that are run now; all: those on this host. */
function chosenKernels(
  file: string,
  data: MatrixFile,
  { present, kernels }: MatrixChoice,
  listed: string[],
): string[] {
  if (kernels === undefined) return data.kernels === 'all' ? [...present] : listed;
  for (const id of kernels)
    if (!listed.includes(id))
      throw new UsageError('bad-usage', `--kernel ${id}: ${file} has no such kernel: ${listed.join(', ')}`);
  return [...new Set(kernels)];
}

/** `kernel+module+scenario`, which tells cells apart. */
function nameOf({ kernel, module, scenario }: MatrixCell): string {
  return `${kernel}+${module}+${scenario}`;
}

/** The same for people and globs: of files their names only. */
function labelOf({ kernel, module, scenario }: MatrixCell): string {
  return `${kernel}+${basename(module)}+${basename(scenario, '.yaml')}`;
}

function narrow(file: string, cells: MatrixCell[], only: readonly string[] | undefined): MatrixCell[] {
  if (only === undefined || only.length === 0) return [...cells];
  if (only.includes('')) throw new UsageError('bad-usage', '--only: is empty: give a glob, or leave it out');
  const glob = picomatch([...only]);
  const wanted = cells.filter((cell) => glob(labelOf(cell)));
  if (wanted.length > 0) return wanted;
  const names = cells.map(labelOf);
  throw new UsageError(
    'no-cell',
    `--only ${only.join(' ')}: matches no cell of ${file}: ${names.slice(0, 6).join(', ')}${names.length > 6 ? ', …' : ''}`,
  );
}

function cellsOf(data: MatrixFile, kernel: string, stock: StockExpectation): MatrixCell[] {
  const excluded = (cell: MatrixCell): boolean => data.exclude.some((entry) => matches(entry, cell));
  const inProduct = data.kernels === 'all' || data.kernels.includes(kernel);
  const product = inProduct
    ? data.modules.flatMap((module) =>
        data.scenarios.map((scenario): MatrixCell => ({ kernel, module, scenario })),
      )
    : [];
  const included = data.include
    .filter((entry) => entry.kernel === kernel || (entry.kernel === undefined && inProduct))
    .map(({ kernel: only, module, scenario }) => ({ own: only !== undefined, module, scenario }));
  const cells: MatrixCell[] = [];
  const names = new Set<string>();
  const add = (cell: MatrixCell): void => {
    if (names.has(nameOf(cell))) return;
    names.add(nameOf(cell));
    cells.push(cell);
  };
  for (const cell of product) if (!excluded(cell)) add(cell);
  for (const { own, module, scenario } of included) {
    const cell = { kernel, module, scenario };
    if (own || !excluded(cell)) add(cell);
  }
  return cells.map((cell) => {
    const expected = expectationOf(cell, data, stock);
    return expected ? { ...cell, expected } : cell;
  });
}

/** What is included says more than a pattern, and a kernel's own entry more than one for all. */
function expectationOf(
  cell: MatrixCell,
  { include, expect }: MatrixFile,
  stock: StockExpectation,
): MatrixCell['expected'] {
  const entries = include.filter((entry) => matches(entry, cell) && entry.expect !== undefined);
  const entry = entries.find(({ kernel }) => kernel !== undefined) ?? entries[0];
  if (entry?.expect && entry.why) return { verdict: entry.expect, why: entry.why };
  const stated = expect.find((other) => matches(other, cell));
  if (stated) return { verdict: stated.verdict, why: stated.why };
  return cell.module === 'stock' && cell.scenario === STOCK_SCENARIO ? stock(cell.kernel) : undefined;
}

function matches(
  entry: { kernel?: string | undefined; module?: string | undefined; scenario?: string | undefined },
  cell: MatrixCell,
): boolean {
  return (
    (entry.kernel ?? cell.kernel) === cell.kernel &&
    (entry.module ?? cell.module) === cell.module &&
    (entry.scenario ?? cell.scenario) === cell.scenario
  );
}

/** A cell's positive control by the first entry that matches; none if that is the cell itself. */
function controlOf(cell: MatrixCell, { controls }: MatrixFile): MatrixCell | undefined {
  const entry = controls.find(({ of }) => matches(of, cell));
  if (!entry) return undefined;
  const control = { kernel: entry.kernel ?? cell.kernel, module: entry.module, scenario: entry.scenario };
  return nameOf(control) === nameOf(cell) ? undefined : control;
}

/** Kernels that a file for all kernels is about and that have no cell in this run. */
function skippedKernels(
  file: string,
  data: MatrixFile,
  { known, present }: MatrixChoice,
  cells: MatrixCell[],
): Matrix['skipped'] {
  if (data.kernels !== 'all') return [];
  const used = new Set(cells.map(({ kernel }) => kernel));
  const leftOut = (id: string): boolean =>
    data.exclude.some((entry) => entry.kernel === id && !entry.module && !entry.scenario) &&
    !data.include.some(({ kernel }) => kernel === id);
  return listedKernels(data, known)
    .filter((id) => !used.has(id))
    .map((kernel) => ({
      kernel,
      why: leftOut(kernel)
        ? `left out by ${file}`
        : present.includes(kernel)
          ? 'not asked for'
          : `not on this host: loopanic kernel fetch ${kernel}, or kernel add`,
    }));
}
