import { resolve } from 'node:path';
import { EXIT, InterruptedError, UsageError } from '../../base/errors.js';
import { exists } from '../../base/files.js';
import { harmless } from '../../base/harmless.js';
import { soughtIn } from '../../bug/sought.js';
import { analyzeDump } from '../../forensics/analyze.js';
import { type Context, printResult, progressFor } from '../context.js';

export interface AnalyzeArgs {
  vmcore: string;
  vmlinux: string;
  modules?: string | undefined;
  bug: string;
  receiver?: string | undefined;
  output?: string | undefined;
  json: boolean;
}

/** `loopanic analyze VMCORE --vmlinux F`: exit 0 if the walk could be taken, whatever it showed; 3 if not. */
export async function analyze(args: AnalyzeArgs, { signal }: Context): Promise<number> {
  for (const [name, path] of [
    ['', args.vmcore],
    ['--vmlinux ', args.vmlinux],
    ['--modules ', args.modules],
    ['--output ', args.output],
  ] as const)
    if (path !== undefined && !(await exists(path)))
      throw new UsageError('no-such-file', `${name}${path}: no such file`);
  const analysis = await progressFor().step(`analysis of ${args.vmcore}`, () =>
    analyzeDump(
      {
        vmcore: resolve(args.vmcore),
        vmlinux: resolve(args.vmlinux),
        sought: soughtIn(args),
        ...(args.modules === undefined ? {} : { modules: resolve(args.modules) }),
        ...(args.output === undefined ? {} : { dir: resolve(args.output) }),
      },
      signal,
    ),
  );
  if (signal.aborted) throw new InterruptedError();
  printResult(args.json, analysis, () => [
    analysis.conclusion.text,
    ...analysis.checks.map(({ name, found, holds }) => `  ${holds ? 'ok ' : 'NO '} ${name}: ${found}`),
    ...(args.output === undefined ? [] : [`analysis: ${resolve(args.output)}`]),
  ]);
  if (analysis.problem !== null)
    process.stderr.write(harmless(`loopanic: the analysis is incomplete: ${analysis.problem}\n`));
  return analysis.problem === null ? EXIT.ok : EXIT.noVerdict;
}
