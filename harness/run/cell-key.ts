import { readdir, readFile } from 'node:fs/promises';
import { basename, join, relative } from 'node:path';
import { contentKey } from '../base/files.js';
import { insideOf, readGiven } from '../base/given-file.js';
import { imagesDir, packageRoot } from '../base/paths.js';
import { host } from '../host/command.js';
import { needProgram } from '../host/tools.js';
import type { CellParts, DumpMethod } from '../trial/plan.js';

/**
 * Names everything that a cell's trials are made of, and the program that runs and reads them: a trial with another key is another
 * experiment.
 */
export async function cellKey(parts: Omit<CellParts, 'key'>, dump: DumpMethod): Promise<string> {
  const { kernel, module, loaded, accel, image, modules, capture, lun, mkfs, scripts } = parts;
  return contentKey(
    await programKey(),
    await qemuVersion(),
    kernel.key,
    await readFile(module.file),
    module.id,
    JSON.stringify(loaded.scenario),
    scripts,
    image.key,
    // Cached by content: their names tell what is in them.
    ...[basename(modules), basename(capture ?? ''), basename(lun ?? ''), mkfs.join(' '), accel, dump],
  );
}

const readOnce = <T>(read: () => Promise<T>): (() => Promise<T>) => {
  let value: Promise<T> | undefined;
  return () => {
    value ??= read();
    return value;
  };
};

/** Content of the compiled program, its tests left out. */
export const programKey = readOnce(async () => {
  const dir = join(packageRoot, 'dist');
  const files = (await readdir(dir, { recursive: true }))
    .filter((name) => name.endsWith('.js') && !name.startsWith('test/'))
    .sort();
  const content: (string | Buffer)[] = [];
  for (const name of files) content.push(name, await readFile(join(dir, name)));
  return contentKey(...content);
});

export const qemuVersion = readOnce(async () => {
  const { stdout } = await host(await needProgram('qemu-system-x86_64'), ['--version']);
  return stdout.split('\n')[0] ?? '';
});

/** No file of a workload is larger. */
const MOST_SCRIPT_MIB = 64;

/** Content of what runs in a guest beside the image: loopanic's own scripts, the image's, and the workload. */
export async function scriptsKey({
  imageScript,
  workload,
}: {
  imageScript: string;
  workload: string;
}): Promise<string> {
  const folders = [join(imagesDir, 'guest'), workload];
  return contentKey(await readFile(imageScript), ...(await Promise.all(folders.map(folderContent))).flat());
}

/** Names and contents of a folder's files, in order. A link is read as what it leads to, which must be in the folder. */
export async function folderContent(dir: string): Promise<(string | Buffer)[]> {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true });
  const files = entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name));
  const content: (string | Buffer)[] = [];
  for (const file of files.sort()) {
    const own = await insideOf(dir, file, 'odd-file');
    content.push(relative(dir, file), await readGiven(own, MOST_SCRIPT_MIB, 'odd-file'));
  }
  return content;
}

/** Version of this loopanic, by its package. */
export const programVersion = readOnce(async () => {
  const { version } = JSON.parse(await readFile(join(packageRoot, 'package.json'), 'utf8')) as {
    version: string;
  };
  return version;
});
