import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { UsageError } from '../base/errors.js';
import { readGiven } from '../base/given-file.js';

/** Files that the kernel's build reads, the first that is there. */
const READ = ['Kbuild', 'Makefile'] as const;
/** Files that make itself would read, and the kernel's build does not. */
const UNREAD = /^(?:GNUmakefile|makefile|kbuild)$/;

/** Of a Makefile, with what is continued. */
const LONGEST_LINE = 16_384;

/** Variables that reach the compiler only from make's command line or environment, which are loopanic's here. */
const FROM_OUTSIDE = /^(?:CC|CFLAGS|CPPFLAGS|KCFLAGS|KCPPFLAGS|HOSTCC|LD|LLVM)$/;
/** Variables that the kernel's build reads in Kbuild or Makefile. */
const FLAGS =
  /^(?:(?:subdir-)?(?:ccflags|asflags|ldflags)-.*|EXTRA_(?:CFLAGS|AFLAGS|LDFLAGS)|(?:CFLAGS|AFLAGS)_.*|KBUILD_(?:CFLAGS|CPPFLAGS|AFLAGS)\w*|(?!obj-)[\w-]+-(?:y|m|objs))$/;

/** What a call of the kernel's build may set without changing a module. */
const PLACES =
  /^(?:M|SUBDIRS|KBUILD_EXTMOD|src|V|W|O|PWD|CURDIR|KDIR|KERNELDIR|KERNEL_DIR|KSRC|KERNEL_SRC|KVER|KVERSION|KERNELRELEASE|kernelver|INSTALL_MOD_\w+|DESTDIR)$/;
/** Targets of a Makefile that make no module. */
const NO_BUILD =
  /(?:^|[-_])(?:\.PHONY|clean|distclean|mrproper|install|uninstall|load|unload|insmod|rmmod|reload|help|check|test|tests|tags|cscope|dist|deb|rpm|package|dkms|sign|format|lint|depmod)(?:$|[-_])/;

/**
 * Checks that what a folder's Makefiles set is what the kernel's build reads there: it reads Kbuild, or else Makefile, and runs none of
 * the commands by which a Makefile calls it. What stands elsewhere would be ignored in silence. Throws UsageError with the line. `old`:
 * the kernel's build still knows EXTRA_CFLAGS (gone in 6.15).
 */
export async function refuseUnread(dir: string, old: boolean): Promise<void> {
  const names = await readdir(dir);
  for (const name of names.filter((entry) => UNREAD.test(entry)))
    throw refusal(join(dir, name), 1, name, 'the kernel reads Kbuild and Makefile only');
  const read = READ.find((name) => names.includes(name));
  for (const name of READ.filter((entry) => names.includes(entry))) {
    const file = join(dir, name);
    const unread = name === read ? '' : ` (the kernel reads ${read} instead)`;
    let target = '';
    for (const { number, text } of logicalLines((await readGiven(file, 1)).toString())) {
      if (text.length > LONGEST_LINE)
        throw refusal(file, number, `${text.slice(0, 40)}…`, `it is longer than ${LONGEST_LINE} characters`);
      if (text.startsWith('\t')) {
        const why = isBuild(target) ? whyNot(text) : null;
        if (why !== null) throw refusal(file, number, why, 'it is in a command that is not run here');
        continue;
      }
      const set = /^\s*(?:export\s+|override\s+)*([\w.$()-]+)\s*(?:[:+?]|::)?=/.exec(text)?.[1];
      if (set === undefined) {
        target = /^([^\s:=#][^:=#]*?)\s*:(?!=)/.exec(text)?.[1] ?? target;
        continue;
      }
      if (FROM_OUTSIDE.test(set))
        throw refusal(file, number, text.trim(), 'use ccflags-y, which the kernel reads');
      if (/^EXTRA_/.test(set) && !old)
        throw refusal(file, number, text.trim(), 'this kernel knows ccflags-y only');
      if (unread !== '' && FLAGS.test(set))
        throw refusal(file, number, text.trim(), `it has no effect${unread}`);
    }
  }
}

function refusal(file: string, number: number, what: string, why: string): UsageError {
  return new UsageError(
    'folder-refused',
    `${file}:${number}: ${what}: is not honoured here: ${why}; or build the module, and give it as a .ko`,
  );
}

/** A rule for an object or a file is the kernel's build's own; one that people call by name is not. */
function isBuild(target: string): boolean {
  return target.split(/\s+/).some((name) => !/[/.$%]/.test(name) && !NO_BUILD.test(name));
}

/** What in a command is more than a plain call of the kernel's build; null if nothing is. */
export function whyNot(command: string): string | null {
  for (const part of command.split(/&&|\|\||;/)) {
    const words = part
      .trim()
      .replace(/^[@+-]+/, '')
      .split(/\s+/)
      .filter((word) => word !== '');
    const program = words.find((word) => !/^\w+=/.test(word)) ?? '';
    if (/^(?:#|echo$|printf$|:$|true$|cd$|pwd$|ls$|\$\((?:info|warning) )/.test(program) || program === '')
      continue;
    // What is done with the module that is built is not for us.
    if (/^(?:strip|modinfo|xz|gzip|zstd|rm|mkdir|depmod|sync)$/.test(program)) continue;
    if (/^(?:cp|mv|install)$/.test(program) && /\.ko\b/.test(part)) continue;
    if (!/^["']?(?:make|gmake|\$[({]MAKE[)}])["']?$/.test(program)) return part.trim();
    for (const word of words) {
      const name = /^["']?([A-Za-z_]\w*)=/.exec(word)?.[1];
      if (name !== undefined && !PLACES.test(name)) return part.trim();
    }
  }
  return null;
}

/** Lines with those that go on after a backslash, numbered from 1; without comments and blank ones. */
function logicalLines(text: string): { number: number; text: string }[] {
  const lines: { number: number; text: string }[] = [];
  let open: { number: number; text: string } | null = null;
  for (const [index, line] of text.split('\n').entries()) {
    const now: { number: number; text: string } = open ?? { number: index + 1, text: '' };
    now.text += line.replace(/\\$/, ' ');
    open = line.endsWith('\\') ? now : null;
    if (open === null && !/^\s*(?:#|$)/.test(now.text)) lines.push(now);
  }
  return lines;
}
