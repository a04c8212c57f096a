import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import { packageRoot } from '../../base/paths.js';

/** Files below a folder whose first line, or name, says that a shell reads them. */
async function shellScripts(dir: string): Promise<string[]> {
  const found: string[] = [];
  for (const entry of await readdir(dir, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (!entry.isFile()) continue;
    const [first = ''] = (await readFile(path, 'latin1')).split('\n', 1);
    if (/^#!\/bin\/sh/.test(first) || entry.name.endsWith('.sh')) found.push(path);
  }
  return found.sort();
}

test('ShellCheck finds nothing in what guests run', async (t) => {
  const scripts = [
    ...(await shellScripts(join(packageRoot, 'vm-images'))),
    ...(await shellScripts(join(packageRoot, 'scenarios'))),
  ];
  t.true(scripts.length >= 20);
  // Not: files of the guest that are read there (1090, 1091), what they set (2154) and read (2034).
  const { stdout, exitCode } = await execa(
    'shellcheck',
    ['-s', 'sh', '-S', 'warning', '-e', 'SC1090,SC1091,SC2154,SC2034', ...scripts],
    { reject: false },
  );
  t.is(exitCode, 0, stdout);
});
