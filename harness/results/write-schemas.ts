import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { packageRoot } from '../base/paths.js';
import { publishedSchemas } from './schemas.js';

// `npm run schemas`: writes harness/schemas from the zod schemas. A test says when they differ.
const dir = join(packageRoot, 'harness/schemas');
await mkdir(dir, { recursive: true });
for (const [name, schema] of Object.entries(publishedSchemas()))
  await writeFile(join(dir, name), `${JSON.stringify(schema, null, 2)}\n`);
