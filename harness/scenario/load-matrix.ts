import { basename } from 'node:path';
import picomatch from 'picomatch';
import * as z from 'zod';
import { UsageError } from '../base/errors.js';
import { readYaml } from '../base/yaml-file.js';

/** Verdict of a cell. */
export const verdictSchema = z.enum(['panics', 'clean', 'inconclusive', 'void']);
export type Verdict = z.infer<typeof verdictSchema>;

const name = z.string().min(1);
/** Cells by name; what is not given matches every one. */
const pattern = { kernel: name.optional(), module: name.optional(), scenario: name.optional() };
const expectation = z.enum(['panics', 'clean']);

/** A matrix file: which cells a run has, and what each is expected to show. */
export const matrixSchema = z
  .strictObject({
    summary: z.string().optional(),
    kernels: z
      .union([z.literal('all'), z.array(name).min(1)])
      .describe(
        'kernel ids; all: the catalogue and what was added, of which those that are not on this host are skipped',
      ),
    modules: z.array(name).default([]).describe('multiplied with scenarios'),
    scenarios: z.array(name).default([]),
    include: z
      .array(
        z
          .strictObject({
            kernel: name.optional().describe('default: every kernel of the list'),
            module: name,
            scenario: name,
            expect: expectation.optional(),
            why: z.string().min(1).optional(),
          })
          .refine((entry) => (entry.expect === undefined) === (entry.why === undefined), {
            message: 'expect and why go together',
          }),
      )
      .default([])
      .describe('cells beside the product'),
    exclude: z
      .array(z.strictObject(pattern))
      .default([])
      .describe('cells that are left out, but for those that are included with their kernel'),
    controls: z
      .array(
        z.strictObject({
          of: z.strictObject(pattern).default({}).describe('cells that it is the positive control of'),
          kernel: name.optional().describe("default: the cell's own"),
          module: name,
          scenario: name,
        }),
      )
      .default([])
      .describe(
        'the positive control of a cell is the first entry that matches; it is added if it is no cell',
      ),
    expect: z
      .array(z.strictObject({ ...pattern, verdict: expectation, why: z.string().min(1) }))
      .default([])
      .describe('first entry whose given names all match a cell states its expectation'),
  })
  .superRefine((matrix, context) => {
    const known = {
      kernel:
        matrix.kernels === 'all' ? null : [...matrix.kernels, ...matrix.include.map((entry) => entry.kernel)],
      module: [...matrix.modules, ...[...matrix.include, ...matrix.controls].map((entry) => entry.module)],
      scenario: [
        ...matrix.scenarios,
        ...[...matrix.include, ...matrix.controls].map((entry) => entry.scenario),
      ],
    };
    const check = (entry: Record<string, unknown>, path: (string | number)[]): void => {
      for (const key of ['kernel', 'module', 'scenario'] as const) {
        const given = entry[key];
        const list = known[key];
        if (given !== undefined && list !== null && !list.includes(given as string))
          context.addIssue({
            code: 'custom',
            path: [...path, key],
            message: `${given} is not one of ${key}s: ${[...new Set(list.filter((item) => item !== undefined))].join(', ')}`,
          });
      }
    };
    for (const [index, entry] of matrix.expect.entries()) check(entry, ['expect', index]);
    for (const [index, entry] of matrix.exclude.entries()) check(entry, ['exclude', index]);
    for (const [index, entry] of matrix.controls.entries()) check(entry.of, ['controls', index, 'of']);
    if (matrix.modules.length * matrix.scenarios.length === 0 && matrix.include.length === 0)
      context.addIssue({
        code: 'custom',
        path: ['include'],
        message: 'no cell: give modules and scenarios, or include',
      });
  });
type MatrixFile = z.output<typeof matrixSchema>;

/** One cell of a matrix, by names. */
export interface MatrixCell {
  kernel: string;
  module: string;
  scenario: string;
  expected?: { verdict: Verdict; why: string };
  /** Index, among the run's cells, of its positive control. */
  control?: number;
}

export interface Matrix {
  name: string;
  cells: MatrixCell[];
}

/** What a kernel's own module is expected to show, if anybody said so. */
export type StockExpectation = (kernel: string) => { verdict: Verdict; why: string } | undefined;

/** Narrows a matrix down. */
export interface MatrixChoice {
  /** Kernels that `all` stands for. */
  all: readonly string[];
  /** Only these kernels. */
  kernels?: readonly string[] | undefined;
  /** Only cells whose `kernel+module+scenario` one of these globs matches. */
  only?: readonly string[] | undefined;
  stock: StockExpectation;
}

/** The scenario that `stock` expectations of the catalogue are about. */
const STOCK_SCENARIO = 'xfs-loopback';

/**
 * Loads a matrix file and multiplies it out: kernels × modules × scenarios and what is included, in the file's order, each with its expectation and its
 * positive control. Throws UsageError.
 */
export async function loadMatrix(file: string, choice: MatrixChoice): Promise<Matrix> {
  const data = await readYaml(file, matrixSchema);
  const listed = data.kernels === 'all' ? choice.all : data.kernels;
  for (const id of choice.kernels ?? [])
    if (data.kernels !== 'all' && !data.kernels.includes(id))
      throw new UsageError(
        'bad-usage',
        `--kernel ${id}: ${file} has no such kernel: ${data.kernels.join(', ')}`,
      );
  const kernels = choice.kernels ?? listed;
  const cells: MatrixCell[] = [];
  for (const kernel of kernels) addCells(cells, data, kernel, choice.stock);
  const glob = choice.only && choice.only.length > 0 ? picomatch([...choice.only]) : () => true;
  const wanted = cells.filter((cell) => glob(nameOf(cell)));
  if (wanted.length === 0) {
    const names = cells.map(nameOf);
    throw new UsageError(
      'no-cell',
      `--only ${choice.only?.join(' ')}: matches no cell of ${file}: ${names.slice(0, 6).join(', ')}${names.length > 6 ? ', …' : ''}`,
    );
  }
  for (const cell of [...wanted]) {
    const control = controlOf(cell, data);
    if (!control) continue;
    const same = (other: MatrixCell): boolean => nameOf(other) === nameOf(control);
    if (!wanted.some(same)) wanted.push(cells.find(same) ?? control);
    cell.control = wanted.findIndex(same);
  }
  return { name: basename(file).replace(/\.matrix\.yaml$|\.yaml$/, ''), cells: wanted };
}

function nameOf({ kernel, module, scenario }: MatrixCell): string {
  return `${kernel}+${module}+${scenario}`;
}

function addCells(cells: MatrixCell[], data: MatrixFile, kernel: string, stock: StockExpectation): void {
  const add = (cell: MatrixCell): void => {
    if (cells.some((other) => nameOf(other) === nameOf(cell))) return;
    const stated = data.expect.find((entry) => matches(entry, cell));
    const own = cell.module === 'stock' && cell.scenario === STOCK_SCENARIO ? stock(cell.kernel) : undefined;
    const expected = cell.expected ?? (stated ? { verdict: stated.verdict, why: stated.why } : own);
    cells.push(expected ? { ...cell, expected } : cell);
  };
  for (const module of data.modules)
    for (const scenario of data.scenarios) {
      const cell = { kernel, module, scenario };
      if (!data.exclude.some((entry) => matches(entry, cell))) add(cell);
    }
  for (const { kernel: only, module, scenario, expect, why } of data.include)
    if (
      only === undefined
        ? !data.exclude.some((entry) => matches(entry, { kernel, module, scenario }))
        : only === kernel
    )
      add({ kernel, module, scenario, ...(expect && why ? { expected: { verdict: expect, why } } : {}) });
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

/** A cell's positive control, which is never the cell itself. What is a control of others on its kernel has none. */
function controlOf(cell: MatrixCell, { controls }: MatrixFile): MatrixCell | undefined {
  const entry = controls.find(({ of }) => matches(of, cell));
  if (!entry) return undefined;
  const control = { kernel: entry.kernel ?? cell.kernel, module: entry.module, scenario: entry.scenario };
  if (control.kernel !== cell.kernel) return control;
  const isControl = controls.some(
    ({ module, scenario }) => module === cell.module && scenario === cell.scenario,
  );
  return isControl ? undefined : control;
}
