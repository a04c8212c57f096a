import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { checkIsCompiled } from '../../kernel/compiled-change.js';
import { tempDir } from '../support/files.js';

/** Forms of Makefiles as the kernel's tree has them, each with a source that shows it. */
const TREE: Record<string, string> = {
  '.config': 'CONFIG_XFS_FS=m\nCONFIG_SELINUX=y\nCONFIG_ATA=m\n# CONFIG_DRBD is not set\n',
  'fs/Makefile': 'obj-$(CONFIG_XFS_FS) += xfs/\n',
  'fs/xfs/Makefile':
    'obj-$(CONFIG_XFS_FS) += xfs.o\nxfs-y += $(addprefix libxfs/, \\\n  xfs_ag.o \\\n  xfs_sb.o)\n',
  'fs/xfs/libxfs/xfs_sb.c': '#include "xfs_sb.h"\n',
  'fs/xfs/libxfs/xfs_sb.h': 'int b;\n',
  'kernel/sched/Makefile': 'obj-y += build_policy.o\n',
  'kernel/sched/build_policy.c': '#include "rt.c"\n',
  'kernel/sched/rt.c': 'int b;\n',
  'arch/x86/Kbuild': 'obj-y += kernel/\nobj-$(CONFIG_XEN) += xen/\n',
  'arch/x86/kernel/Makefile': 'obj-y += head_$(BITS).o $(obj)/early.o\n',
  'arch/x86/xen/Makefile': 'obj-y += mmu.o\n',
  'security/selinux/Makefile': 'obj-$(CONFIG_SELINUX) := selinux.o\nselinux-y := hooks.o ss/services.o\n',
  'drivers/Makefile': 'obj-y += block/\nobj-$(subst m,y,$(CONFIG_ATA)) += ata/\n',
  'drivers/ata/Makefile': 'obj-y += libata.o\n',
  'drivers/block/Makefile': 'obj-$(CONFIG_DRBD) += drbd/\n',
  'drivers/block/drbd/Makefile': 'obj-$(CONFIG_DRBD) += drbd.o\ndrbd-y := drbd_main.o drbd_req.o\n',
  'drivers/block/drbd/drbd_main.c': '#include "drbd_int.h"\n',
  'drivers/block/drbd/drbd_req.c': '#include "drbd_int.h"\n',
  'drivers/block/drbd/drbd_int.h': '#include <linux/drbd.h>\n',
  'include/linux/drbd.h': 'int b;\n',
};

async function tried(t: ExecutionContext, path: string): Promise<boolean> {
  const tree = await tempDir(t);
  for (const [name, text] of Object.entries({ [path]: 'int b;\n', ...TREE })) {
    await mkdir(dirname(join(tree, name)), { recursive: true });
    await writeFile(join(tree, name), text);
  }
  return checkIsCompiled(tree, new Map([[path, 'int a;']])).then(
    () => true,
    () => false,
  );
}

for (const [what, path] of [
  ['named below another folder by addprefix', 'fs/xfs/libxfs/xfs_sb.c'],
  ['a header that such a one reads', 'fs/xfs/libxfs/xfs_sb.h'],
  ['read by another source', 'kernel/sched/rt.c'],
  ['named with a variable', 'arch/x86/kernel/head_64.S'],
  ['named in the folder of objects', 'arch/x86/kernel/early.c'],
  ['named by the Makefile of the folder above', 'security/selinux/ss/services.c'],
  ['in a folder under a condition that only make can tell', 'drivers/ata/libata.c'],
  ['read by a file that the build makes', 'include/asm-generic/div64.h'],
  ['named on the command line of the compiler', 'include/linux/kconfig.h'],
  ['a program of the build', 'scripts/mod/modpost.c'],
  ['built by rules of its own', 'arch/x86/entry/vdso/vclock_gettime.c'],
] as const)
  test(`kernel build: a change counts in a file that is ${what}`, async (t) => {
    t.true(await tried(t, path));
  });

for (const [what, path] of [
  ['a list of people', 'MAINTAINERS'],
  ['words beside a driver', 'drivers/block/drbd/README'],
  ['a devicetree', 'arch/x86/platform/ce4100/falconfalls.dts'],
  ['in a folder that is left out', 'arch/x86/xen/mmu.c'],
  ['part of a module that is left out', 'drivers/block/drbd/drbd_req.c'],
  ['a header that only such ones read', 'drivers/block/drbd/drbd_int.h'],
  ['a header that only such a header reads', 'include/linux/drbd.h'],
  ['a header that nothing reads', 'include/linux/nothing.h'],
] as const)
  test(`kernel build: no change counts in a file that is ${what}`, async (t) => {
    t.false(await tried(t, path));
  });
