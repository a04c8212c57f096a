import { join, relative } from 'node:path';
import type { BuildTree } from '../kernel/build-tree.js';
import type { Kernel } from '../kernel/kernel.js';

/** What a build gets: folders on this host, and arguments of make that differ by place. */
export interface BuildJob {
  kernel: Kernel;
  tree: BuildTree;
  /** The module's source with its Makefile; read only. */
  source: string;
  /** Folder where the module is to be left. */
  out: string;
  /** Its file name. */
  ko: string;
  seconds: number;
  update: (text: string) => void;
}

/** How a build ended. */
export interface BuildResult {
  failed: boolean;
  output: string;
  /** What stopped it, if that was not make itself. */
  why?: string;
}

/** Where a build takes place, as make sees it. */
interface BuildPlace {
  headers: string;
  root: string;
  dir: string;
  cc: string;
  /** Of gcc. */
  version: string;
}

/**
 * Arguments of make for one module outside the kernel's tree. The names of the folders are mapped away, so that equal sources give equal
 * modules wherever they are built.
 */
export function makeArguments({ headers, root, dir, cc, version }: BuildPlace): string[] {
  const option = Number.parseInt(version, 10) >= 8 ? '-ffile-prefix-map' : '-fdebug-prefix-map';
  const flags = [`${option}=${dir}=module`, `${option}=${root}=kernel`];
  return [
    ...['-C', headers, `M=${dir}`, `CC=${cc}`, `KCFLAGS=${flags.join(' ')}`],
    // Without BTF, which takes pahole and is not needed to load.
    ...['CONFIG_MODULE_SRCVERSION_ALL=y', 'CONFIG_DEBUG_INFO_BTF_MODULES=', 'modules'],
  ];
}

/** The headers' folder as seen from a tree that is mounted elsewhere. */
export function headersBelow(tree: BuildTree, mount: string): string {
  return join(mount, relative(tree.root, tree.headers));
}

/** Exit codes of timeout(1) when it had to stop its command. */
export function timedOut(exitCode: number | null | undefined, seconds: number): { why?: string } {
  if (exitCode === 124) return { why: `stopped after ${seconds} s (--build-seconds)` };
  return exitCode === 137
    ? { why: `killed: it took more than ${seconds} s (--build-seconds), or too much memory` }
    : {};
}
