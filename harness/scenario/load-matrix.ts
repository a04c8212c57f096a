import { basename } from 'node:path';
import * as z from 'zod';
import { readYaml } from '../base/yaml-file.js';

/** Verdict of a cell. */
export const verdictSchema = z.enum(['panics', 'clean', 'inconclusive', 'void']);
export type Verdict = z.infer<typeof verdictSchema>;

const name = z.string().min(1);

/** A matrix file: which cells a run has, and what each is expected to show. */
export const matrixSchema = z
  .strictObject({
    kernels: z.array(name).min(1),
    modules: z.array(name).min(1),
    scenarios: z.array(name).min(1),
    expect: z
      .array(
        z.strictObject({
          kernel: name.optional(),
          module: name.optional(),
          scenario: name.optional(),
          verdict: z.enum(['panics', 'clean']),
          why: z.string().min(1),
        }),
      )
      .default([])
      .describe('first entry whose given names all match a cell states its expectation'),
  })
  .superRefine((matrix, context) => {
    const lists = { kernel: matrix.kernels, module: matrix.modules, scenario: matrix.scenarios } as const;
    matrix.expect.forEach((entry, index) => {
      for (const key of ['kernel', 'module', 'scenario'] as const) {
        const given = entry[key];
        if (given !== undefined && !lists[key].includes(given))
          context.addIssue({
            code: 'custom',
            path: ['expect', index, key],
            message: `${given} is not one of ${key}s: ${lists[key].join(', ')}`,
          });
      }
    });
  });

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

/** Loads a matrix file and multiplies it out: kernels × modules × scenarios, in the file's order. Throws UsageError. */
export async function loadMatrix(file: string): Promise<Matrix> {
  const data = await readYaml(file, matrixSchema);
  const cells: MatrixCell[] = [];
  for (const kernel of data.kernels)
    for (const module of data.modules)
      for (const scenario of data.scenarios) {
        const expectation = data.expect.find(
          (entry) =>
            (entry.kernel ?? kernel) === kernel &&
            (entry.module ?? module) === module &&
            (entry.scenario ?? scenario) === scenario,
        );
        const cell: MatrixCell = { kernel, module, scenario };
        if (expectation) cell.expected = { verdict: expectation.verdict, why: expectation.why };
        cells.push(cell);
      }
  return { name: basename(file).replace(/\.matrix\.yaml$|\.yaml$/, ''), cells };
}
