import { commandError, host } from '../host/command.js';
import { needProgram } from '../host/tools.js';

/** Packs a folder as a newc cpio archive, the format of an initramfs (Documentation/driver-api/early-userspace). Owner root. */
export async function packCpio(dir: string, target: string): Promise<void> {
  const cpio = await needProgram('cpio');
  try {
    await host('find', ['.', '-print0'], { cwd: dir, buffer: { stdout: false } }).pipe(
      cpio,
      ['--quiet', '--null', '-o', '-H', 'newc', '-R', '0:0'],
      { cwd: dir, stdout: { file: target } },
    );
  } catch (error) {
    throw commandError('cpio', error);
  }
}
