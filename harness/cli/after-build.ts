import { chmod, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { exists } from '../base/files.js';
import { packageRoot } from '../base/paths.js';

// Last step of a build: the command can be run, and what was built from a source that is gone goes too, so that no test runs what is stale.
const dist = join(packageRoot, 'dist');
await chmod(join(dist, 'cli/main.js'), 0o755);
for (const name of await readdir(dist, { recursive: true })) {
  const source = join(packageRoot, 'harness', name.replace(/\.js(?:\.map)?$/, '.ts'));
  if (/\.js(?:\.map)?$/.test(name) && !(await exists(source))) await rm(join(dist, name));
}
