import { firstLine, interruptible, LoopanicError, UsageError } from '../../base/errors.js';
import type { Progress } from '../../base/progress.js';
import type { Bug } from '../../bug/bug.js';
import { bugOf } from '../../bug/family.js';
import { checkKernelId } from '../../kernel/catalogue.js';
import { ensureKernel } from '../../kernel/fetch.js';
import { presentKernel } from '../../kernel/store.js';
import type { BuildOptions } from '../../module/build-options.js';
import { codeText } from '../../module/identity.js';
import { checkModuleId, ensureModule } from '../../module/module.js';
import { moduleText } from '../../report/cell-state.js';
import type { RunDocument } from '../../results/run-schema.js';
import { executeRun } from '../../run/execute.js';
import type { RunRequest } from '../../run/prepare.js';
import { loadScenario } from '../../scenario/load-scenario.js';
import { DEFAULT_CONFIDENCE } from '../../verdict/boots.js';
import { percent } from '../../verdict/cell-verdict.js';
import { isDecided } from '../../verdict/verdict.js';
import { type Context, printResult, progressFor } from '../context.js';
import { cellLines, exitCodeOf } from '../run-output.js';

export interface ValidateArgs
  extends BuildOptions,
    Pick<RunRequest, 'trials' | 'retries' | 'dump' | 'keepDumps' | 'results' | 'accel'> {
  kernel: string;
  module: string;
  control?: string | undefined;
  scenario: string;
  image?: string | undefined;
  /** Undefined: a reading of the gate is proof. */
  confidence?: number | undefined;
  seed?: number | undefined;
  json: boolean;
}

/** `loopanic validate`: the positive control, then the module under test until there is proof: one verdict with numbers. */
export async function validate(args: ValidateArgs, { signal }: Context): Promise<number> {
  const progress = progressFor();
  await checkKernelId(args.kernel);
  const bug = bugOf((await loadScenario(args.scenario)).scenario.bug);
  await checkModuleId(args.module, await presentKernel(args.kernel), bug.module);
  const control = args.control ?? (await interruptible(chooseControl(args, bug, progress, signal), signal));
  const { kernel, module, scenario, image, trials, retries, dump, keepDumps, results, accel } = args;
  const { confidence = DEFAULT_CONFIDENCE } = args;
  if (control === module)
    throw new UsageError(
      'bad-usage',
      `--module ${module}: is the positive control itself: give another one with --control`,
    );
  const result = await executeRun(
    {
      command: 'validate',
      cells: [
        { kernel, module: control, scenario, isControl: true },
        {
          kernel,
          module,
          scenario,
          control: 0,
          expected: { verdict: 'clean', why: 'it is to be validated as a fix' },
        },
      ],
      ...{ image, trials, retries, confidence, dump, keepDumps, results, accel, build: args },
      byReading: args.confidence === undefined,
      ...(args.seed === undefined ? {} : { seed: args.seed }),
    },
    signal,
    progress,
  );
  printResult(args.json, result.document, () => [
    ...result.document.cells.flatMap((cell) => cellLines(cell, result.document, cell.isControl)),
    summary(result.document),
    `results: ${result.folder}`,
  ]);
  return exitCodeOf(result.document);
}

/** The bug's own control; where that cannot be built, the kernel's own module, which is a control only if it panics. */
async function chooseControl(
  args: ValidateArgs,
  { control, module: gate }: Bug,
  progress: Progress,
  signal: AbortSignal,
): Promise<string> {
  const kernel = await ensureKernel(args.kernel, progress);
  try {
    await ensureModule(control, { kernel, gate }, progress, args, signal);
    return control;
  } catch (error) {
    if (!(error instanceof LoopanicError) || signal.aborted) throw error;
    progress.line(`positive control: the kernel's stock module, for ${firstLine(error)}`);
    return 'stock';
  }
}

/** The last line of a validation: is it a fix, the verdict with its numbers, and what was tested. */
export function summary({ cells, confidence, request }: RunDocument): string {
  const [control, tested] = cells;
  const rate = control?.statistics?.rate;
  const [k, n] = [control?.statistics?.panicked ?? 0, control?.statistics?.counted ?? 0];
  const interval =
    rate && tested?.provenBy !== 'reading'
      ? ` (95 % interval ${percent(rate.low)} to ${percent(rate.high)})`
      : '';
  const code = tested?.moduleInfo ? codeText(tested.moduleInfo) : null;
  const toldAlready = code !== null && tested?.reason.includes(code) ? `; ${code}` : '';
  const answer = isDecided(tested?.verdict ?? null)
    ? tested?.verdict === 'clean'
      ? 'yes'
      : 'no'
    : 'no answer';
  return `${answer}: ${tested?.module} on ${tested?.kernel}: ${tested?.verdict ?? 'no verdict'}: ${tested?.reason}; positive control ${control?.module}: ${k} of ${n} boots panicked${interval}${confidence === null || request.byReading ? '' : `; confidence asked for: ${percent(confidence)}`}${tested?.moduleInfo ? `; tested: ${moduleText(tested).replace(toldAlready, '')}` : ''}`;
}
