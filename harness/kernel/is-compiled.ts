import { readFile } from 'node:fs/promises';
import { basename, dirname, join, relative } from 'node:path';
import { host } from '../host/command.js';

/** Words for people, and what other architectures, samples and tools are made of. */
const NEVER =
  /^(?:Documentation|LICENSES|samples)\/|^arch\/(?!x86\/)|^tools\/(?!(?:objtool|include|lib|arch|build|scripts|bpf\/resolve_btfids)\/)|(?:^|\/)(?:MAINTAINERS|CREDITS|COPYING|README|TODO|\.[^/]*)$|\.(?:rst|md|dtsi?|svg|cocci)$/;
/** What is built by rules of its own, or read by files that are made in the build or named on the compiler's command line. */
const ALWAYS =
  /^(?:tools|scripts)\/|^arch\/x86\/(?:boot|entry\/vdso|purgatory|realmode|tools)\/|^(?:include\/(?:uapi\/)?asm-generic|arch\/x86\/include\/uapi)\/|^include\/linux\/(?:kconfig|hidden|compiler\w*|compiler-\w+)\.h$/;
/** Directories and objects of a Makefile that go into the kernel or a module of their own. */
const ROOTS = /^(?:obj|lib|core|head|libs|drivers|net|virt)$/;
/** More searches of the tree than this, of seconds each: it is compiled, for all that can be told. */
const MOST_SEARCHES = 12;
/** In one word of a Makefile. */
const MOST_VARIABLES = 3;

/**
 * Whether a configured kernel tree compiles anything of a file. Only what is known to be left out is: a file that no Makefile and no
 * other source names, or only under options that are off; whatever cannot be told counts as compiled. Source:
 * Documentation/kbuild/makefiles.rst.
 */
export async function isCompiled(tree: string, path: string): Promise<boolean> {
  if (NEVER.test(path)) return false;
  if (ALWAYS.test(path) || !/\.[chS]$/.test(path)) return true;
  const config = await readFile(join(tree, '.config'), 'utf8');
  const on = new Set([...config.matchAll(/^(CONFIG_\w+)=/gm)].map(([, name = '']) => name));
  return new Compiled(tree, on).file(path);
}

/** Whether a line of a Makefile names a file; a variable may stand for anything: `$(obj)/x.o`, `head_$(BITS).o`. */
function names(line: string, name: string): boolean {
  return line.split(/\s+/).some((word) => {
    const plain = word.replace(/^\)+|\)+$|^\$\((?:obj|src)\)\//g, '');
    if (!plain.includes('$(')) return plain === name;
    const parts = plain.split(/\$\([^)]*\)/).map((part) => part.replace(/[^\w/-]/g, '\\$&'));
    // With as many of them it is named, for all that can be told.
    if (parts.length > MOST_VARIABLES + 1) return true;
    return parts.length > 1 && new RegExp(`^${parts.join('[^ ]*')}$`).test(name);
  });
}

/** `$(addprefix libxfs/, xfs_ag.o)` */
function isPrefixed(line: string, prefix: string, object: string): boolean {
  return line.includes(`$(addprefix ${prefix}/,`) && line.split(/[\s(),]+/).includes(object);
}

class Compiled {
  readonly #tree: string;
  readonly #on: ReadonlySet<string>;
  readonly #seen = new Set<string>();
  #searches = 0;
  readonly #composites = new Map<string, boolean>();

  constructor(tree: string, on: ReadonlySet<string>) {
    this.#tree = tree;
    this.#on = on;
  }

  /**
   * A source that is an object of its own, or is read by one that is. `isReader`: it reads the file that is asked about; one that a
   * Makefile names is hardly read by another.
   */
  async file(path: string, isReader = false): Promise<boolean> {
    this.#seen.add(path);
    if (ALWAYS.test(path)) return true;
    if (/\.[cS]$/.test(path)) {
      const named = await this.#object(dirname(path), basename(path).replace(/\.[cS]$/, '.o'));
      if (named === true || (named === false && isReader)) return named;
    }
    if (++this.#searches > MOST_SEARCHES) return true;
    for (const reader of await this.#readers(path))
      if (!this.#seen.has(reader) && (await this.file(reader, true))) return true;
    return false;
  }

  /** Whether a Makefile of this folder, or of one above it, takes an object in; null if none names it. */
  async #object(dir: string, object: string): Promise<boolean | null> {
    let named: boolean | null = null;
    for (let above = dir; ; above = dirname(above)) {
      const name = join(relative(above, dir), object);
      for (const line of await this.#lines(above)) {
        if (!names(line, name) && !(name !== object && isPrefixed(line, dirname(name), object))) continue;
        if (await this.#takes(above, line)) return true;
        named = false;
      }
      if (above === '.') return named;
    }
  }

  /** Whether a line of a Makefile puts what it names into this configuration. */
  async #takes(dir: string, line: string): Promise<boolean> {
    const [, target, option] = /^\s*([\w.-]+?)-(?:\$\((CONFIG_\w+)\)|y|m|objs)\s*[:+?]?=/.exec(line) ?? [];
    // A condition of another form: not for us to tell.
    if (target === undefined) return true;
    if (option !== undefined && !this.#on.has(option)) return false;
    if (ROOTS.test(target)) return this.#folder(dir);
    const key = join(dir, `${target}.o`);
    const known = this.#composites.get(key);
    if (known !== undefined) return known;
    // One that is made of itself cannot be told.
    this.#composites.set(key, true);
    const taken = (await this.#object(dir, `${target}.o`)) ?? true;
    this.#composites.set(key, taken);
    return taken;
  }

  /** A folder is left out if those above it name it only under options that are off. */
  async #folder(dir: string): Promise<boolean> {
    if (!dir.includes('/')) return true;
    return (await this.#object(dirname(dir), `${basename(dir)}/`)) ?? true;
  }

  async #lines(dir: string): Promise<string[]> {
    let text = '';
    for (const file of ['Kbuild', 'Makefile'])
      text += `${await readFile(join(this.#tree, dir, file), 'utf8').catch(() => '')}\n`;
    return text
      .replace(/\\\n/g, ' ')
      .split('\n')
      .filter((line) => !/^\s*(?:#|$)/.test(line));
  }

  /** Sources that include a file of this name, wherever it stands. */
  async #readers(path: string): Promise<string[]> {
    const pattern = `^[[:space:]]*#[[:space:]]*include[[:space:]]*[<"]([^">]*/)?${basename(path).replace(/[.+]/g, '\\$&')}[">]`;
    const { stdout } = await host(
      'grep',
      ['-rlE', '--include=*.c', '--include=*.h', '--include=*.S', pattern, '.'],
      { cwd: this.#tree, reject: false },
    );
    const found = stdout.split('\n').filter((name) => name !== '' && name !== `./${path}`);
    const isSource = (name: string): number => (/\.[cS]$/.test(name) ? 0 : 1);
    return found
      .map((name) => name.replace(/^\.\//, ''))
      .filter((name) => !NEVER.test(name))
      .sort((a, b) => isSource(a) - isSource(b));
  }
}
