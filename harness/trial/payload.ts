import { chmod, cp, type FileHandle, mkdir, open, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { scratchDir } from '../base/files.js';
import { imagesDir } from '../base/paths.js';
import { packCpio } from '../image/cpio.js';
import type { SshKeys } from '../vm/ssh.js';
import { type GuestRole, guestPlan, type TrialFiles, type TrialPlan } from './plan.js';

/**
 * The guest's initramfs as an open file without a name: userland, the kernel's modules, and this trial's payload (scripts, keys, the
 * module under test), concatenated; later archives win. Nothing of it can be left behind: it is gone with its descriptors.
 */
export async function openInitramfs(
  plan: TrialPlan,
  files: TrialFiles,
  keys: SshKeys,
  hold: boolean,
  role: GuestRole,
): Promise<FileHandle> {
  await using scratch = await scratchDir('payload');
  const root = join(scratch.path, 'root');
  await cp(join(imagesDir, 'guest'), join(root, 'loopanic'), { recursive: true });
  await cp(join(imagesDir, 'guest', files.rootDisk === null ? 'init-ram' : 'init-disk'), join(root, 'init'));
  await cp(files.imageScript, join(root, 'loopanic/image.sh'));
  await cp(files.workload, join(root, 'loopanic/workload'), { recursive: true });
  // The held trial's switch, on the PATH of a person in the guest.
  await mkdir(join(root, 'usr/bin'), { recursive: true });
  await cp(join(imagesDir, 'guest/start-workload'), join(root, 'usr/bin/workload'));
  await writeFile(join(root, 'loopanic/plan'), guestPlan(plan, hold, role));
  for (const [format, key] of Object.entries(keys.hostKey))
    await writeFile(join(root, `loopanic/hostkey.${format}`), key, { mode: 0o600 });
  await mkdir(join(root, 'root/.ssh'), { recursive: true, mode: 0o700 });
  await chmod(join(root, 'root'), 0o700);
  await writeFile(join(root, 'root/.ssh/authorized_keys'), `${keys.publicKey}\n`, { mode: 0o600 });
  if (plan.dump === 'kdump' && files.crash && role !== 'target') {
    await mkdir(join(root, 'loopanic/kdump'));
    await cp(files.crash.kernel, join(root, 'loopanic/kdump/vmlinuz'));
    await cp(files.crash.initramfs, join(root, 'loopanic/kdump/initramfs'));
  }
  const module = join(root, plan.modulePath);
  await mkdir(dirname(module), { recursive: true });
  await cp(files.module, module);
  const payload = join(scratch.path, 'payload.cpio');
  await packCpio(root, payload);

  const path = join(scratch.path, 'initramfs');
  const file = await open(path, 'wx+', 0o600);
  await rm(path);
  for (const part of [files.userland, files.modules, payload]) await file.appendFile(await readFile(part));
  return file;
}
