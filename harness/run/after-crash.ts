import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { writeJson } from '../base/files.js';
import type { Progress } from '../base/progress.js';
import type { Sought } from '../bug/sought.js';
import { analyzeDump } from '../forensics/analyze.js';
import { findProgram } from '../host/tools.js';
import { debugVmlinux } from '../kernel/debug-info.js';
import type { Kernel } from '../kernel/kernel.js';
import { type DumpRecord, dumpSchema } from '../outcome/dump-schema.js';
import type { RunTrial } from '../results/run-schema.js';
import { dumpPorts } from '../trial/take-dump.js';

/** Which vmcores stay: all, the first of each cell, or none. */
export type KeepDumps = 'all' | 'first' | 'none';

/** What follows a crashed trial. */
export interface AfterCrash {
  kernel: Kernel;
  /** The trial's folder. */
  dir: string;
  sought: Sought;
  keep: boolean;
}

/** Analyses the dump of a trial, if there is one and debug info is at hand, and removes the dump if it is not to be kept. */
export async function afterCrash(
  { kernel, dir, sought, keep }: AfterCrash,
  progress: Progress,
  signal: AbortSignal,
): Promise<Pick<RunTrial, 'dump' | 'analysis'>> {
  const file = join(dir, 'dump.json');
  const text = await readFile(file, 'utf8').catch(() => null);
  if (text === null) {
    // A dump that was cut off with its run, or on its way from a worker.
    await rm(dumpPorts(dir).vmcore, { force: true });
    for (const name of await readdir(dir))
      if (name.endsWith('.part')) await rm(join(dir, name), { force: true });
    return { dump: null, analysis: null };
  }
  const dump: DumpRecord = dumpSchema.parse(JSON.parse(text));
  const { method, bytes } = dump;
  const summary = (kept: boolean): RunTrial['dump'] => ({ method, bytes, kept });
  // Not looked at: a run that goes on does it then.
  if (signal.aborted) return { dump: null, analysis: null };
  if (!dump.complete) return { dump: summary(dump.kept), analysis: null };
  const vmcore = join(dir, 'vmcore');
  const vmlinux = await debugVmlinux(kernel);
  let analysis: RunTrial['analysis'] = null;
  if (vmlinux === null)
    progress.line(
      `no analysis: bring the debug info with 'loopanic kernel debuginfo ${kernel.id}'${keep ? ' (then: loopanic analyze)' : ''}`,
    );
  else {
    const { conclusion, seconds } = await progress.step('analysis of the dump', () =>
      analyzeDump({ vmcore, vmlinux, sought, dir }, signal),
    );
    analysis = conclusion;
    if (signal.aborted) return { dump: null, analysis: null };
    // An analysis that never started because there is no crash says nothing of the dump.
    if (await findProgram('crash')) dump.readable.crash = seconds.start > 0;
  }
  if (!keep) await rm(vmcore);
  await writeJson(file, { ...dump, kept: keep });
  return { dump: summary(keep), analysis };
}
