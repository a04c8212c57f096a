import { readFile, symlink } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { InfraError } from '../base/errors.js';
import { scratchDir } from '../base/files.js';
import { host } from '../host/command.js';
import { confinement } from '../host/confine.js';
import { needProgram } from '../host/tools.js';

/** Time for one answer. Start-up reads all of vmlinux's symbols: 8 s here, several times that on a loaded host. */
const SECONDS = { start: 300, command: 120 };

/** Does nothing: its answer shows that the dump is open. */
const OPENING = '!true';
const UNREADABLE = /^.*(?:(?:read|seek) error:|page excluded:|invalid kernel virtual address:).*$/m;

/** One command and what crash answered. */
export interface CrashAnswer {
  command: string;
  output: string;
}

/** A running crash(8) on one dump. Its answers go through files, so nothing else that it prints can get among them. */
export class CrashSession implements AsyncDisposable {
  readonly transcript: CrashAnswer[] = [];
  /** The first thing that the dump should have held and did not, in crash's words. */
  damage: string | null = null;
  /** The folder of modules, as crash is to be told it. */
  modules: string | null = null;
  readonly #child: ReturnType<typeof spawn>;
  readonly #dir: string;
  readonly #scratch: AsyncDisposable;
  #said = '';
  #count = 0;
  #wake: () => void = () => {};
  #ended = false;

  private constructor(child: ReturnType<typeof spawn>, scratch: AsyncDisposable & { path: string }) {
    this.#child = child;
    this.#scratch = scratch;
    this.#dir = scratch.path;
    const take = (chunk: Buffer): void => {
      this.#said = (this.#said + chunk.toString('latin1')).slice(-20_000);
      this.#wake();
    };
    child.stdout.on('data', take);
    child.stderr.on('data', take);
    child.stdin.on('error', () => {});
    child.then(() => {
      this.#ended = true;
      this.#wake();
    });
  }

  /** Opens a dump. Throws InfraError with crash's own words if it cannot (truncated dump, vmlinux of another build). */
  static async open(
    { vmlinux, vmcore, modules }: { vmlinux: string; vmcore: string; modules?: string },
    signal: AbortSignal,
  ): Promise<CrashSession> {
    const [setpriv, crash] = [await needProgram('setpriv'), await needProgram('crash')];
    const scratch = await scratchDir('crash');
    // Links of plain names: crash takes an @ in a path for an address, and hands what it is told to a shell.
    const files = {
      ...{ vmlinux: join(scratch.path, 'vmlinux'), vmcore: join(scratch.path, 'vmcore') },
      modules: join(scratch.path, 'modules'),
    };
    if (modules !== undefined) await symlink(resolve(modules), files.modules);
    await symlink(resolve(vmlinux), files.vmlinux);
    await symlink(resolve(vmcore), files.vmcore);
    const session = new CrashSession(
      spawn(setpriv, crash, files.vmlinux, files.vmcore, scratch.path, signal),
      scratch,
    );
    try {
      await session.#answer(OPENING, SECONDS.start);
      session.transcript.length = 0;
      // Behind a slash it is the folder, not the link.
      if (modules !== undefined) session.modules = `${files.modules}/`;
      return session;
    } catch (error) {
      await session[Symbol.asyncDispose]();
      throw error;
    }
  }

  /**
   * Runs one command and returns its output. Throws InfraError if crash ends or does not answer. What cannot be read is noted in
   * `damage`, but for a `probe` of an address that may be none.
   */
  async run(command: string, kind: 'read' | 'probe' = 'read'): Promise<string> {
    this.#said = '';
    const output = await this.#answer(command, SECONDS.command);
    const trouble = UNREADABLE.exec(`${output}\n${this.#said}`);
    if (trouble && kind === 'read') this.damage ??= `${command}: ${trouble[0].trim()}`;
    return output;
  }

  async #answer(command: string, seconds: number): Promise<string> {
    const mark = `@@loopanic-${++this.#count}`;
    const file = join(this.#dir, `${this.#count}.out`);
    const text = command === OPENING ? command : `${command} > ${file}`;
    this.#child.stdin.write(`${text}\n!echo ${mark}\n`);
    const step = command === OPENING ? 'opening the dump' : `'${command}'`;
    const deadline = performance.now() + seconds * 1000;
    while (!this.#said.includes(mark)) {
      if (this.#ended) throw new InfraError('crash-ended', `crash ended at ${step}: ${this.#lastWords()}`);
      if (performance.now() > deadline)
        throw new InfraError('crash-hangs', `crash did not come through ${step} within ${seconds} s`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 500);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    const output =
      command === OPENING
        ? ''
        : await readFile(file, 'latin1').catch((error: unknown) => {
            throw new InfraError('crash-no-answer', `crash left no answer to ${step}`, error);
          });
    this.transcript.push({ command, output });
    return output;
  }

  #lastWords(): string {
    const lines = this.#said.split(/[\r\n]+/).map((line) => line.trim());
    const error = lines.find((line) => /^crash: |cannot|not a supported|do not match|truncated/i.test(line));
    return error ?? lines.filter(Boolean).at(-1) ?? 'it said nothing';
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#child;
    await this.#scratch[Symbol.asyncDispose]();
  }
}

function spawn(
  setpriv: string,
  crash: string,
  vmlinux: string,
  vmcore: string,
  cwd: string,
  signal: AbortSignal,
) {
  // -s: no banner. Neither a user's .crashrc nor one in this folder may change what the answers look like.
  return host(setpriv, [...confinement(), '--', crash, '-s', '--no_scroll', vmlinux, vmcore], {
    stdin: 'pipe',
    buffer: false,
    reject: false,
    cancelSignal: signal,
    forceKillAfterDelay: 1000,
    cwd,
    env: { LC_ALL: 'C', HOME: '/nonexistent' },
  });
}
