import type { BuildOptions } from '../../module/build.js';
import { loadMatrix } from '../../scenario/load-matrix.js';
import type { KeepDumps } from '../../session/after-crash.js';
import { executeRun } from '../../session/execute.js';
import type { DumpMethod } from '../../trial/plan.js';
import type { Accel } from '../../vm/qemu-args.js';
import { type Context, progressFor } from '../context.js';
import { exitCodeOf, printRun } from '../run-output.js';

export interface MatrixArgs extends BuildOptions {
  file: string;
  image: string;
  trials: number;
  dump: DumpMethod;
  keepDumps: KeepDumps;
  json: boolean;
  results: string;
  accel: 'auto' | Accel;
}

/** `loopanic matrix FILE`: every cell of a matrix file, against its expectations. */
export async function matrix(args: MatrixArgs, { signal }: Context): Promise<number> {
  const { cells } = await loadMatrix(args.file);
  const { image, trials, dump, keepDumps, results, accel } = args;
  const request = {
    command: 'matrix',
    cells,
    image,
    trials,
    retries: 0,
    dump,
    keepDumps,
    results,
    accel,
    build: args,
  };
  const result = await executeRun(request, signal, progressFor());
  printRun(args.json, result);
  return exitCodeOf(result.document);
}
