import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { writeJson } from '../base/files.js';
import type { Progress } from '../base/progress.js';
import type { Analysis } from '../forensics/analysis-schema.js';
import { analyzeDump } from '../forensics/analyze.js';
import { debugVmlinux } from '../kernel/debug-info.js';
import type { Kernel } from '../kernel/kernel.js';
import { type DumpRecord, dumpSchema } from '../outcome/dump-schema.js';

/** Which vmcores stay: all, the first of each cell, or none. */
export type KeepDumps = 'all' | 'first' | 'none';

/** What follows a crashed trial. */
export interface AfterCrash {
  kernel: Kernel;
  /** The trial's folder. */
  dir: string;
  receiver: string;
  keep: boolean;
}

/** Analyses the dump of a trial, if there is one and debug info is at hand, and removes the dump if it is not to be kept. */
export async function afterCrash(
  { kernel, dir, receiver, keep }: AfterCrash,
  progress: Progress,
  signal: AbortSignal,
): Promise<Analysis | null> {
  const file = join(dir, 'dump.json');
  const text = await readFile(file, 'utf8').catch(() => null);
  if (text === null) return null;
  const dump: DumpRecord = dumpSchema.parse(JSON.parse(text));
  if (!dump.complete) return null;
  const vmcore = join(dir, 'vmcore');
  const vmlinux = await debugVmlinux(kernel);
  let analysis: Analysis | null = null;
  if (vmlinux === null)
    progress.line(
      `no analysis: bring the debug info with 'loopanic kernel debuginfo ${kernel.id}' (then: loopanic analyze)`,
    );
  else {
    analysis = await progress.step('analysis of the dump', () =>
      analyzeDump({ vmcore, vmlinux, receiver, dir }, signal),
    );
    dump.readable.crash = analysis.seconds.start > 0;
  }
  if (!keep) await rm(vmcore);
  await writeJson(file, { ...dump, kept: keep });
  return analysis;
}
