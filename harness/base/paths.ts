import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

function findPackageRoot(): string {
  let dir = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(dir, 'package.json'))) {
    const parent = dirname(dir);
    if (parent === dir) throw new Error('package.json not found above the program');
    dir = parent;
  }
  return dir;
}

/** The folder that holds package.json, scenarios/ and vm-images/. */
export const packageRoot = findPackageRoot();
export const scenariosDir = join(packageRoot, 'scenarios');
export const imagesDir = join(packageRoot, 'vm-images');

/** Where built and downloaded things are kept: `$XDG_CACHE_HOME/loopanic`, or `~/.cache/loopanic`. */
export function cacheDir(...parts: string[]): string {
  const xdg = process.env.XDG_CACHE_HOME;
  const base = xdg?.startsWith('/') ? xdg : join(homedir(), '.cache');
  return join(base, 'loopanic', ...parts);
}

/** True if what a user named is a file (a module, patch, scenario), not one of loopanic's own names. */
export function isFile(id: string): boolean {
  return (
    id.includes('/') || /\.(ko|patch|diff|mbox|mail|eml|txt|deb|rpm|yaml)(\.(gz|xz|zst|bz2))?$/i.test(id)
  );
}
