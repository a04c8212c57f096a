import * as z from 'zod';
import { analysisSchema } from '../forensics/analysis-schema.js';
import { recipeSchema } from '../image/recipe.js';
import { catalogueSchema } from '../kernel/catalogue.js';
import { variantsSchema } from '../module/module.js';
import { dumpSchema } from '../outcome/dump-schema.js';
import { outcomeSchema } from '../outcome/outcome-schema.js';
import { matrixSchema } from '../scenario/matrix-schema.js';
import { scenarioSchema } from '../scenario/scenario-schema.js';
import { runSchema } from './run-schema.js';

/** What loopanic writes. */
const written = {
  run: runSchema,
  outcome: outcomeSchema,
  dump: dumpSchema,
  analysis: analysisSchema,
};
/** What people write. */
const read = {
  scenario: scenarioSchema,
  matrix: matrixSchema,
  kernels: catalogueSchema,
  image: recipeSchema,
  variants: variantsSchema,
};
/** Those of which a file may be like another: then none of its keys is needed. */
const INHERITED = ['scenario', 'image'];

/** The JSON Schemas that loopanic publishes in harness/schemas, by file name. Files that people write are described as input. */
export function publishedSchemas(): Record<string, unknown> {
  const published: Record<string, unknown> = {};
  const target = 'draft-2020-12';
  for (const [name, schema] of Object.entries(written))
    published[`${name}.schema.json`] = z.toJSONSchema(schema, { io: 'output', target });
  for (const [name, schema] of Object.entries(read)) {
    const json = z.toJSONSchema(schema, { io: 'input', target });
    published[`${name}.schema.json`] = INHERITED.includes(name) ? likeable(json) : json;
  }
  return published;
}

const LIKE = { type: 'string', description: 'takes from this one what it does not say itself' };

/** The schema of a file that may be like another one: on every level, what it does not say may come from there. */
function likeable(json: unknown, isTop = true): unknown {
  if (typeof json !== 'object' || json === null) return json;
  if (Array.isArray(json)) return json.map((part) => likeable(part, isTop));
  const { required: _, ...rest } = json as Record<string, unknown>;
  const inner = Object.entries(rest).map(([key, value]) => {
    const isChoice = key === 'oneOf' || key === 'anyOf';
    return [key, key === 'properties' || isChoice ? parts(value, isTop && isChoice) : value] as const;
  });
  const made: Record<string, unknown> = Object.fromEntries(inner);
  if (isTop && typeof made.properties === 'object') made.properties = { like: LIKE, ...made.properties };
  return made;
}

function parts(value: unknown, isTop: boolean): unknown {
  if (Array.isArray(value)) return value.map((part) => likeable(part, isTop));
  return Object.fromEntries(
    Object.entries(value as Record<string, unknown>).map(([name, part]) => [name, likeable(part, false)]),
  );
}
