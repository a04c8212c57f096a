import { EXIT, firstLine, interruptible, LoopanicError, UsageError } from '../../base/errors.js';
import type { Progress } from '../../base/progress.js';
import { readYaml } from '../../base/yaml-file.js';
import type { Bug } from '../../bug/bug.js';
import { bugOf } from '../../bug/family.js';
import { checkKernelId } from '../../kernel/catalogue.js';
import { ensureKernel } from '../../kernel/fetch.js';
import { presentKernel } from '../../kernel/store.js';
import type { BuildOptions } from '../../module/build-options.js';
import { commitModules } from '../../module/git-range.js';
import { kindOf } from '../../module/given.js';
import { checkModuleId, ensureModule } from '../../module/module.js';
import { ensurePatchedKernel, type PatchedKernel, refuseWithoutKernel } from '../../module/patched-kernel.js';
import { isOfFamily, reachOf } from '../../module/sources.js';
import { answerLines, answerMarkdown, answerOf, summary } from '../../report/validation.js';
import { executeRun } from '../../run/execute.js';
import type { RunRequest } from '../../run/prepare.js';
import { type MatrixCell, matrixFile } from '../../scenario/load-matrix.js';
import { loadScenario } from '../../scenario/load-scenario.js';
import { matrixSchema } from '../../scenario/matrix-schema.js';
import { DEFAULT_CONFIDENCE } from '../../verdict/boots.js';
import { type Context, printResult, progressFor } from '../context.js';
import { cellLines, exitCodeOf } from '../run-output.js';

export interface ValidateArgs
  extends BuildOptions,
    Pick<RunRequest, 'trials' | 'retries' | 'dump' | 'keepDumps' | 'results' | 'accel'> {
  kernel: string;
  module?: string | undefined;
  git?: string | undefined;
  rev?: string | undefined;
  control?: string | undefined;
  scenario: string;
  image?: string | undefined;
  /** Undefined: a reading of the gate is proof. */
  confidence?: number | undefined;
  seed?: number | undefined;
  buildKernel: boolean;
  allBugs: boolean;
  format: 'text' | 'md';
  json: boolean;
}

/** `loopanic validate`: the positive control, then the module under test until there is proof: one verdict with numbers. */
export async function validate(args: ValidateArgs, { signal }: Context): Promise<number> {
  if (args.json && args.format === 'md')
    throw new UsageError('bad-usage', '--json and --format md both want stdout: give one of them');
  if ((args.module === undefined) === (args.git === undefined))
    throw new UsageError('bad-usage', 'validate: give --module, or --git with a tree');
  if (args.rev !== undefined && args.git === undefined)
    throw new UsageError('bad-usage', '--rev: is for --git');
  const progress = progressFor();
  await checkKernelId(args.kernel);
  const scenarios = await scenariosOf(args);
  const cells: MatrixCell[] = [];
  const [first] = scenarios;
  const patched = await patchedKernel(args, first?.bug as Bug, progress, signal);
  const { modules, elsewhere } = await modulesOf(args, first?.bug as Bug, progress);
  for (const { name, bug } of scenarios) {
    if (patched) cells.push(...patchedCells(patched, name, bug, cells.length));
    else cells.push(...(await moduleCells(args, modules, name, bug, cells.length, progress, signal)));
  }
  const { image, trials, retries, dump, keepDumps, results, accel, confidence = DEFAULT_CONFIDENCE } = args;
  const result = await executeRun(
    {
      command: 'validate',
      cells,
      ...{ image, trials, retries, confidence, dump, keepDumps, results, accel, build: args },
      byReading: args.confidence === undefined,
      ...(args.seed === undefined ? {} : { seed: args.seed }),
    },
    signal,
    progress,
  );
  const { document, folder } = result;
  const { module, git, rev, kernel, buildKernel } = args;
  const asked = { module, git, rev, kernel, buildKernel, elsewhere };
  printResult(args.json, document, () =>
    args.format === 'md'
      ? [answerMarkdown(document, asked)]
      : [
          ...document.cells.flatMap((cell) => cellLines(cell, document, cell.isControl)),
          ...answerLines(document, asked),
          summary(document),
          `results: ${folder}`,
        ],
  );
  const code = exitCodeOf(document);
  return code === EXIT.unexpected && answerOf(document) === 'no answer' ? EXIT.noVerdict : code;
}

interface ScenarioOfBug {
  name: string;
  bug: Bug;
}

/** The scenario that was asked for; with --all-bugs every one that shows a bug of the same module, by the family's matrices. */
async function scenariosOf({ scenario, allBugs }: ValidateArgs): Promise<ScenarioOfBug[]> {
  const asked: ScenarioOfBug = { name: scenario, bug: bugOf((await loadScenario(scenario)).scenario.bug) };
  if (!allBugs) return [asked];
  const found = [asked];
  for (const matrix of ['family', 'live'])
    for (const { scenario: name, expect } of (await readYaml(await matrixFile(matrix), matrixSchema))
      .include) {
      if (expect !== 'panics' || found.some((other) => other.name === name)) continue;
      const bug = bugOf((await loadScenario(name)).scenario.bug);
      if (bug.module.name === asked.bug.module.name) found.push({ name, bug });
    }
  return found;
}

/** The module that was given, or what --git has of it, oldest first; and what of the range is not tried. */
async function modulesOf(
  { module, git, rev }: ValidateArgs,
  bug: Bug,
  progress: Progress,
): Promise<{ modules: string[]; elsewhere: string[] }> {
  if (git === undefined) return { modules: module === undefined ? [] : [module], elsewhere: [] };
  const range = await commitModules(git, rev, bug.module, MOST_COMMITS);
  for (const { commit, subject } of range.modules) progress.line(`${commit.slice(0, 12)}: ${subject}`);
  return { modules: range.modules.map(({ dir }) => dir), elsewhere: range.elsewhere };
}

/** A range of more is for bisect. */
const MOST_COMMITS = 100;

/** A control, and the modules beside it. */
async function moduleCells(
  args: ValidateArgs,
  modules: readonly string[],
  scenario: string,
  bug: Bug,
  at: number,
  progress: Progress,
  signal: AbortSignal,
): Promise<MatrixCell[]> {
  const { kernel } = args;
  for (const module of modules) await checkModuleId(module, await presentKernel(kernel), bug.module);
  const control = args.control ?? (await interruptible(chooseControl(args, bug, progress, signal), signal));
  if (modules.includes(control))
    throw new UsageError(
      'bad-usage',
      `--module ${control}: is the positive control itself: give another one with --control`,
    );
  return [
    { kernel, module: control, scenario, isControl: true },
    ...modules.map((module) => ({ kernel, module, scenario, control: at, expected: FIX })),
  ];
}

const FIX = { verdict: 'clean', why: 'it is to be validated as a fix' } as const;

/** Builds the kernel that patches of built-in code take; null if the module alone can have them. Throws UsageError. */
async function patchedKernel(
  args: ValidateArgs,
  bug: Bug,
  progress: Progress,
  signal: AbortSignal,
): Promise<PatchedKernel | null> {
  const { module } = args;
  if (module === undefined || (await kindOf(module)) !== 'patch') {
    if (args.buildKernel)
      throw new UsageError(
        'bad-usage',
        `--build-kernel: ${module ?? '--git'} is no patch that a kernel could be built with`,
      );
    return null;
  }
  const { foreign } = await reachOf(module, bug.module);
  if (foreign.length === 0 && !args.buildKernel) return null;
  // What is another module's of the family is said so.
  if (!args.buildKernel) {
    if (foreign.every((path) => isOfFamily(path))) return null;
    return refuseWithoutKernel(module, args.kernel, foreign);
  }
  if (args.control !== undefined)
    throw new UsageError(
      'bad-usage',
      '--control with --build-kernel: the control is the same kernel without the patches',
    );
  return ensurePatchedKernel(module, { from: args.kernel, gate: bug.module }, progress, signal);
}

/**
 * The control is the kernel that was built without the patches, with the bug's own control. Patches of built-in code alone are to help a module
 * that lets slab pages through, and must leave the kernel's own as good as it is.
 */
function patchedCells(
  { kernel, without, changesModule }: PatchedKernel,
  scenario: string,
  { control }: Bug,
  at: number,
): MatrixCell[] {
  const tested = changesModule ? ['stock'] : [...new Set([control, 'stock'])];
  return [
    { kernel: without, module: control, scenario, isControl: true },
    ...tested.map((module) => ({ kernel, module, scenario, control: at, expected: FIX })),
  ];
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
