import * as z from 'zod';
import { isMistyped, suggestion } from '../base/nearest.js';
import { isFile } from '../base/paths.js';

/** The verdict that a matrix file states for a cell. */
export const expectationSchema = z.enum(['panics', 'exposed', 'clean']);
export type Expectation = z.infer<typeof expectationSchema>;

const name = z.string().min(1);
/** Cells by name; what is not given matches every one. */
const pattern = { kernel: name.optional(), module: name.optional(), scenario: name.optional() };
const expectation = expectationSchema;

/** A matrix file: which cells a run has, and what each is expected to show. */
export const matrixSchema = z
  .strictObject({
    summary: z.string().optional(),
    kernels: z
      .union([z.literal('all'), z.array(name).min(1)], { error: 'must be all, or a list of kernel ids' })
      .describe(
        'kernel ids; all: the catalogue and what was added, of which those that are not on this host are skipped',
      ),
    modules: z
      .array(name)
      .default([])
      .describe("multiplied with scenarios; a path is relative to the matrix file's folder"),
    scenarios: z.array(name).default([]).describe("names, or paths relative to the matrix file's folder"),
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
      .describe(
        'cells beside the product, or expectations for cells of it; one with its kernel comes before one for all kernels',
      ),
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
        'the positive control of a cell is the first entry that matches; it is added if it is no cell. A control has none itself',
      ),
    expect: z
      .array(z.strictObject({ ...pattern, verdict: expectation, why: z.string().min(1) }))
      .default([])
      .describe('first entry whose given names all match a cell states its expectation'),
  })
  .superRefine((matrix, context) => {
    const issue = (path: (string | number)[], message: string): void =>
      context.addIssue({ code: 'custom', path, message });
    const named = {
      kernel:
        matrix.kernels === 'all'
          ? null
          : [
              ...matrix.kernels,
              ...[...matrix.include, ...matrix.controls].flatMap(({ kernel }) => kernel ?? []),
            ],
      module: [...matrix.modules, ...[...matrix.include, ...matrix.controls].map(({ module }) => module)],
      scenario: [
        ...matrix.scenarios,
        ...[...matrix.include, ...matrix.controls].map(({ scenario }) => scenario),
      ],
    };
    for (const { path, key, value } of namesIn(matrix)) {
      const list = named[key];
      if (list !== null && !list.includes(value))
        issue(path, `${value} is not one of ${key}s: ${[...new Set(list)].join(', ')}`);
    }
    for (const [index, entry] of matrix.include.entries()) {
      const earlier = matrix.include.findIndex(
        ({ kernel, module, scenario }) =>
          kernel === entry.kernel && module === entry.module && scenario === entry.scenario,
      );
      if (earlier < index) issue(['include', index], `names the same cells as include.${earlier}`);
    }
    for (const [index, entry] of matrix.expect.entries()) {
      const earlier = matrix.expect.findIndex((other) =>
        KEYS.every((key) => other[key] === undefined || other[key] === entry[key]),
      );
      if (earlier < index)
        issue(['expect', index], `never counts: expect.${earlier} matches every cell that it does`);
    }
    if (matrix.modules.length * matrix.scenarios.length === 0 && matrix.include.length === 0)
      issue(['include'], 'no cell: give modules and scenarios, or include');
  });
export type MatrixFile = z.output<typeof matrixSchema>;

/** Names that exist: kernels of the catalogue and on this host, modules and scenarios. */
export interface KnownNames {
  kernels: readonly string[];
  modules: readonly string[];
  scenarios: readonly string[];
}

/**
 * The schema of a matrix file on this host: names must be known. Files are looked at when they are loaded. A file for all kernels may
 * speak of some that only another host has: of those, only what looks mistyped is refused.
 */
export function matrixSchemaFor(known: KnownNames) {
  const lists = { kernel: known.kernels, module: known.modules, scenario: known.scenarios };
  return matrixSchema.superRefine((matrix, context) => {
    const check = (path: (string | number)[], key: keyof typeof lists, value: string): void => {
      if (lists[key].includes(value) || (key !== 'kernel' && isFile(value))) return;
      if (key !== 'kernel' || matrix.kernels !== 'all' || isMistyped(value, lists[key]))
        context.addIssue({
          code: 'custom',
          path,
          message: `unknown ${key} ${value}${suggestion(value, lists[key])}`,
        });
    };
    if (matrix.kernels !== 'all')
      for (const [index, id] of matrix.kernels.entries()) check(['kernels', index], 'kernel', id);
    for (const [index, id] of matrix.modules.entries()) check(['modules', index], 'module', id);
    for (const [index, id] of matrix.scenarios.entries()) check(['scenarios', index], 'scenario', id);
    for (const list of ['include', 'controls'] as const)
      for (const [index, entry] of matrix[list].entries())
        for (const key of KEYS) if (entry[key] !== undefined) check([list, index, key], key, entry[key]);
    for (const { path, key, value } of namesIn(matrix)) check(path, key, value);
  });
}

const KEYS = ['kernel', 'module', 'scenario'] as const;
type Pattern = { [key in (typeof KEYS)[number]]?: string | undefined };

/** Names in patterns: what is left out, expected and controlled. */
function namesIn(
  matrix: Pick<MatrixFile, 'exclude' | 'controls' | 'expect'>,
): { path: (string | number)[]; key: (typeof KEYS)[number]; value: string }[] {
  const places: { path: (string | number)[]; entry: Pattern }[] = [
    ...matrix.exclude.map((entry, index) => ({ path: ['exclude', index], entry })),
    ...matrix.expect.map((entry, index) => ({ path: ['expect', index], entry })),
    ...matrix.controls.map(({ of }, index) => ({ path: ['controls', index, 'of'], entry: of })),
  ];
  return places.flatMap(({ path, entry }) =>
    KEYS.flatMap((key) => {
      const value = entry[key];
      return value === undefined ? [] : [{ path: [...path, key], key, value }];
    }),
  );
}
