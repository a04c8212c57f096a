import { chmod } from 'node:fs/promises';
import { join } from 'node:path';
import { packageRoot } from '../base/paths.js';

// Last step of `npm run build`: tsc writes plain files, and package.json's bin must be a program.
await chmod(join(packageRoot, 'dist/cli/main.js'), 0o755);
