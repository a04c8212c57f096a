import type { Argv } from 'yargs';
import { DEFAULT_BUG } from '../bug/default-bug.js';
import { BUILD_DEFAULTS } from '../module/build-options.js';

/** The parser, with the options that every command takes. */
export type Cli = ReturnType<typeof globalOptions>;

/** Options that every command takes. */
export function globalOptions<T>(yargs: Argv<T>) {
  return yargs
    .option('json', {
      type: 'boolean',
      default: false,
      describe: 'one JSON document on stdout, text for people on stderr',
    })
    .option('verbose', { type: 'boolean', default: false, describe: 'say more; stack traces on errors' })
    .option('color', { type: 'boolean', default: true, describe: 'colours on a terminal (also NO_COLOR)' })
    .option('results', { type: 'string', default: 'results', describe: 'folder for runs' })
    .option('accel', {
      choices: ['auto', 'kvm', 'tcg'] as const,
      default: 'auto' as const,
      describe: 'how guests run; auto boots a probe before it trusts KVM',
    });
}

/** Options of every command that may have to build modules. */
export function buildOptions<T>(yargs: Argv<T>) {
  return yargs
    .option('builder', {
      choices: ['auto', 'docker', 'host'] as const,
      default: BUILD_DEFAULTS.builder,
      describe: "where modules are built; auto: here, if there is the kernel's compiler, else in a container",
    })
    .option('builder-image', {
      type: 'string',
      describe: 'tarball of the builder image, for hosts without a registry',
    })
    .option('build-seconds', {
      type: 'number',
      default: BUILD_DEFAULTS.buildSeconds,
      describe: 'a build that takes longer is stopped',
    });
}

export const DEFAULT_KERNEL = 'debian-6.1';

export const kernel = {
  type: 'string',
  default: DEFAULT_KERNEL,
  describe: 'kernel id (loopanic kernel ls)',
} as const;
export const gitTree = {
  type: 'string',
  describe: "instead of a module: a git tree of the kernel's source, of which the module's files are taken",
} as const;
export const gitRev = {
  type: 'string',
  describe: 'with --git: a commit, or a range A..B: the module as A has it, and as each commit changes it',
} as const;
export const bug = {
  type: 'string',
  default: DEFAULT_BUG,
  describe: 'bug of the family (loopanic bug ls)',
} as const;
export const receiver = {
  type: 'string',
  describe: "Comm of the task that was to read; default: those of the bug's targets",
} as const;
export const image = {
  type: 'string',
  default: 'minimal',
  describe: 'guest image (loopanic image ls)',
} as const;
export const anyImage = {
  type: 'string',
  describe: "guest image (loopanic image ls); default: the scenario's, or minimal",
} as const;
export const dump = {
  choices: ['kdump', 'qmp', 'none'] as const,
  default: 'kdump' as const,
  describe: 'how a crash is captured; kdump falls back to qmp',
} as const;
export const keepDumps = {
  choices: ['all', 'first', 'none'] as const,
  describe: 'which vmcores stay: all, the first of each cell, none (analyses always stay)',
} as const;
export const verify = {
  type: 'boolean',
  default: true,
  describe: 'check packages; --no-verify takes them as they are',
} as const;
export const jobs = (what: string) =>
  ({
    type: 'string',
    describe: `${what}; auto: as many as this host's cores and memory have room for`,
  }) as const;
export const oneEach = { type: 'string', array: true, nargs: 1 } as const;
export const retries = {
  type: 'number',
  default: 2,
  describe: 'trials of a cell that may fail around the guest (infra-error, no-boot) and are tried again',
} as const;
export const trials = { type: 'number', default: 1, describe: 'boots of each cell' } as const;
export const expectationOk = {
  type: 'boolean',
  default: true,
  describe: 'a panic needs an expectation, or it is a failure; --no-expectation-ok: it needs none',
} as const;
