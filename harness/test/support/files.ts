import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { execa } from 'execa';

/** A folder for one test, removed when the test ends. */
export async function tempDir(t: ExecutionContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'loopanic-test-'));
  // By rm(1): some tests make paths that are too long for Node.
  t.teardown(async () => void (await execa('rm', ['-rf', dir])));
  return dir;
}

/** A file in a folder of its own, removed when the test ends. Returns its path. */
export async function tempFile(
  t: ExecutionContext,
  name: string,
  content: string | Uint8Array,
  mode = 0o644,
): Promise<string> {
  const path = join(await tempDir(t), name);
  await writeFile(path, content, { mode });
  return path;
}
