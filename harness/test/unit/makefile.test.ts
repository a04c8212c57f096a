import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { UsageError } from '../../base/errors.js';
import { refuseUnread } from '../../module/makefile.js';
import { tempDir } from '../support/files.js';

const OBJ = 'obj-m := libiscsi_tcp.o\n';
const call = (more = ''): string => `all:\n\t$(MAKE) -C $(KDIR) M=$(PWD)${more} modules\n`;

/** Why a folder with these files is refused; null if it is not. */
async function refusal(
  t: ExecutionContext,
  files: Record<string, string>,
  old = true,
): Promise<string | null> {
  const dir = await tempDir(t);
  for (const [name, text] of Object.entries(files)) await writeFile(join(dir, name), text);
  return refuseUnread(dir, old).then(
    () => null,
    (error: unknown) => {
      if (!(error instanceof UsageError)) throw error;
      return error.message.replace(`${dir}/`, '');
    },
  );
}

const refused: [what: string, files: Record<string, string>, line: RegExp][] = [
  [
    'flags in a call of the kernel build',
    { Makefile: OBJ + call(' EXTRA_CFLAGS=-DX') },
    /^Makefile:3: .*EXTRA_CFLAGS=-DX.*not honoured/,
  ],
  ['flags before it', { Makefile: `${OBJ}all:\n\tKCFLAGS=-DX make -C /x M=.\n` }, /^Makefile:3: KCFLAGS=-DX/],
  [
    'flags on a continued line',
    { Makefile: `${OBJ}all:\n\tmake -C /x M=. \\\n\t  EXTRA_CFLAGS="-DX"\n` },
    /^Makefile:3: .*EXTRA_CFLAGS/,
  ],
  [
    'a patch that a rule applies',
    { Makefile: `${OBJ}modules:\n\tpatch -p1 < own.patch\n\tmake -C /x M=.\n` },
    /^Makefile:3: patch -p1 < own\.patch/,
  ],
  [
    'flags for the environment',
    { Makefile: `${OBJ}export KCFLAGS := -DX\n` },
    /^Makefile:2: export KCFLAGS := -DX: is not honoured here: use ccflags-y/,
  ],
  ['CFLAGS', { Makefile: `${OBJ}CFLAGS += -DX\n` }, /^Makefile:2: CFLAGS \+= -DX/],
  [
    'flags in a Makefile beside a Kbuild',
    { Kbuild: OBJ, Makefile: 'ccflags-y := -DX\n' },
    /^Makefile:1: ccflags-y := -DX: .*reads Kbuild instead/,
  ],
  [
    'a call with flags in a Makefile beside a Kbuild',
    { Kbuild: OBJ, Makefile: call(' CFLAGS_MODULE=-DX') },
    /^Makefile:2: .*CFLAGS_MODULE/,
  ],
  [
    'a GNUmakefile',
    { Makefile: OBJ, GNUmakefile: 'ccflags-y := -DX\n' },
    /^GNUmakefile:1: .*reads Kbuild and Makefile only/,
  ],
];
for (const [what, files, line] of refused)
  test(`a folder's Makefile: ${what} is refused with its line`, async (t) => {
    t.regex((await refusal(t, files)) ?? '', line);
  });

test("a folder's Makefile: what the kernel reads, and plain calls of its build, are taken", async (t) => {
  for (const files of [
    {},
    {
      Makefile: `${OBJ}ccflags-y += -DX\nCFLAGS_libiscsi_tcp.o := -DY\nEXTRA_CFLAGS += -DZ\nKBUILD_CFLAGS += -g\n`,
    },
    {
      Makefile: `# CFLAGS += -DX\n${OBJ}\nKDIR ?= /lib/modules/$(shell uname -r)/build\n${call()}clean:\n\tmake -C $(KDIR) M=$(PWD) EXTRA_CFLAGS=-DX clean\n\trm -f x\n`,
    },
    { Kbuild: `${OBJ}ccflags-y := -DX\n`, Makefile: `${call()}install: all\n\tinsmod x.ko\n` },
    { Kbuild: OBJ, Makefile: OBJ },
    { Makefile: `${OBJ}$(obj)/gen.h: $(src)/gen.sh\n\tsh $< > $@\n` },
    {
      Makefile: `ifneq ($(KERNELRELEASE),)\n${OBJ}else\nKDIR ?= /x\ndefault:\n\t@echo building\n\t$(MAKE) -C $(KDIR) M=$$PWD\nendif\n`,
    },
  ] as Record<string, string>[])
    t.is(await refusal(t, files), null);
});

test('EXTRA_CFLAGS is refused for a kernel whose build does not read it', async (t) => {
  t.regex(
    (await refusal(t, { Makefile: `${OBJ}EXTRA_CFLAGS += -DX\n` }, false)) ?? '',
    /knows ccflags-y only/,
  );
});
