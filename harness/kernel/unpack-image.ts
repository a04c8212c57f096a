import { writeFile } from 'node:fs/promises';
import { gunzipSync } from 'node:zlib';
import { UsageError } from '../base/errors.js';
import { readGiven } from '../base/given-file.js';
import { host } from '../host/command.js';
import { needProgram } from '../host/tools.js';

/** ELF note XEN_ELFNOTE_PHYS32_ENTRY: the kernel has a PVH entry point, so QEMU can boot the unpacked image. */
const PVH_NOTE = Buffer.from([4, 0, 0, 0]);
const PVH_TYPE = 18;
const MIB = 2 ** 20;
/** No kernel's image is larger, packed or not. */
const MOST_MIB = 256;

/**
 * Unpacks the ELF image out of a bzImage. Offsets are those of the x86 boot protocol 2.08 (Documentation/arch/x86/boot.rst):
 * setup_sects at 0x1f1, payload_offset at 0x248 and payload_length at 0x24c, counted from the protected-mode code.
 * Returns null if the image cannot be booted unpacked: an old protocol, an unknown compression, no PVH entry.
 */
export async function unpackImage(vmlinuz: string): Promise<Buffer | null> {
  const image = await readGiven(vmlinuz, MOST_MIB);
  if (image.length < 0x260 || image.toString('latin1', 0x202, 0x206) !== 'HdrS')
    throw new UsageError('not-a-kernel', `${vmlinuz} is not an x86 kernel image`);
  if (image.readUInt16LE(0x206) < 0x208) return null;
  const sectors = image[0x1f1] || 4;
  const start = (sectors + 1) * 512 + image.readUInt32LE(0x248);
  const payload = image.subarray(start, start + image.readUInt32LE(0x24c));
  // Whatever cannot be unpacked can still be booted as it is.
  const elf = await decompress(payload).catch(() => null);
  if (elf?.toString('latin1', 0, 4) !== '\u007fELF') return null;
  return hasPvhEntry(elf) ? elf : null;
}

async function decompress(payload: Buffer): Promise<Buffer | null> {
  const magic = payload.toString('hex', 0, 6);
  if (magic.startsWith('1f8b')) return gunzipSync(payload, { maxOutputLength: MOST_MIB * MIB });
  // Kbuild appends the unpacked size to formats that do not end with it themselves.
  const stream = payload.subarray(0, payload.length - 4);
  const pipe = async (program: 'xz' | 'zstd', args: string[]): Promise<Buffer> => {
    const { stdout } = await host(await needProgram(program), args, {
      input: stream,
      encoding: 'buffer',
      maxBuffer: MOST_MIB * MIB,
    });
    return Buffer.from(stdout);
  };
  if (magic === 'fd377a585a00') return pipe('xz', ['-dc', '--single-stream']);
  if (magic.startsWith('28b52ffd')) return pipe('zstd', ['-dcq']);
  return null;
}

function hasPvhEntry(elf: Buffer): boolean {
  // Notes: name size, descriptor size, type, name "Xen\0".
  for (let at = elf.indexOf('Xen\0'); at >= 12; at = elf.indexOf('Xen\0', at + 1))
    if (elf.readUInt32LE(at - 4) === PVH_TYPE && elf.subarray(at - 12, at - 8).equals(PVH_NOTE)) return true;
  return false;
}

/** Writes the unpacked image of `vmlinuz` to `target`; returns false if it cannot be booted unpacked. */
export async function writeUnpackedImage(vmlinuz: string, target: string): Promise<boolean> {
  const elf = await unpackImage(vmlinuz);
  if (elf) await writeFile(target, elf);
  return elf !== null;
}
