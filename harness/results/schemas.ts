import * as z from 'zod';
import { analysisSchema } from '../forensics/analysis-schema.js';
import { dumpSchema } from '../outcome/dump-schema.js';
import { outcomeSchema } from '../outcome/outcome-schema.js';
import { matrixSchema } from '../scenario/matrix-schema.js';
import { scenarioSchema } from '../scenario/scenario-schema.js';
import { runSchema } from './run-schema.js';

const schemas = {
  run: runSchema,
  outcome: outcomeSchema,
  dump: dumpSchema,
  analysis: analysisSchema,
  scenario: scenarioSchema,
  matrix: matrixSchema,
};

/** The JSON Schemas that loopanic publishes in harness/schemas, by file name. Files that people write are described as input. */
export function publishedSchemas(): Record<string, unknown> {
  const published: Record<string, unknown> = {};
  for (const [name, schema] of Object.entries(schemas)) {
    const io = name === 'scenario' || name === 'matrix' ? 'input' : 'output';
    published[`${name}.schema.json`] = z.toJSONSchema(schema, { io, target: 'draft-2020-12' });
  }
  return published;
}
