import { EXIT } from '../../base/errors.js';
import type { BuildOptions } from '../../module/build-options.js';
import { makeBundle } from '../../run/bundle.js';
import { type Context, printResult, progressFor } from '../context.js';

export interface BundleArgs extends BuildOptions {
  run: string;
  cell: string;
  trial: number;
  output?: string | undefined;
  results: string;
  json: boolean;
}

/** `loopanic bundle RUN CELL TRIAL`: one boot, to be handed on. */
export async function bundle(args: BundleArgs, { signal }: Context): Promise<number> {
  const { results, run, cell, trial, output } = args;
  const made = await makeBundle({ results, run, cell, trial, output, build: args }, signal, progressFor());
  printResult(args.json, made, () => [made.file, `sha256 ${made.sha256}`]);
  return EXIT.ok;
}
