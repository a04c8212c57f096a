import { delimiter, join } from 'node:path';
import { UsageError } from '../base/errors.js';
import { isExecutable } from '../base/files.js';

/** A program that loopanic calls, and the package that brings it. */
export interface Tool {
  program: string;
  /** Package names by package manager. */
  debian: string;
  fedora: string;
  /** What it is for. */
  purpose: string;
  need: 'needed' | 'optional';
}

/** Every host program that loopanic calls. */
export const tools = [
  tool('qemu-system-x86_64', 'qemu-system-x86', 'qemu-system-x86-core', 'runs the guests'),
  tool('setpriv', 'util-linux', 'util-linux', 'makes QEMU die with loopanic'),
  tool('timeout', 'coreutils', 'coreutils', 'stops builds that loop'),
  tool('mkfs.ext4', 'e2fsprogs', 'e2fsprogs', "formats the LUN's backing file", 'optional'),
  tool('mkfs.xfs', 'xfsprogs', 'xfsprogs', "formats the LUN's backing file"),
  tool('cpio', 'cpio', 'cpio', 'packs guest archives'),
  tool('depmod', 'kmod', 'kmod', 'indexes guest modules'),
  tool('modprobe', 'kmod', 'kmod', 'resolves guest modules'),
  tool('xz', 'xz-utils', 'xz', 'unpacks kernels and sources'),
  tool('gzip', 'gzip', 'gzip', 'unpacks kernel modules'),
  tool('zstd', 'zstd', 'zstd', 'unpacks kernels'),
  tool('tar', 'tar', 'tar', 'unpacks kernel sources'),
  tool('patch', 'patch', 'patch', 'patches module sources'),
  tool('make', 'make', 'make', 'builds modules'),
  tool('gcc-12', 'gcc-12', 'gcc', "builds modules for Debian 12's kernel"),
  tool('mmdebstrap', 'mmdebstrap', 'mmdebstrap', 'builds guest images'),
  tool('dpkg-deb', 'dpkg', 'dpkg', 'unpacks Debian kernels'),
  tool('apt-get', 'apt', 'apt', "fetches Debian's packages"),
  tool('rpm', 'rpm', 'rpm', 'reads kernel RPMs', 'optional'),
  tool('rpmkeys', 'rpm', 'rpm', 'checks signatures of kernel RPMs', 'optional'),
  tool('bsdtar', 'libarchive-tools', 'bsdtar', 'unpacks packages, and nothing outside their folder'),
  tool('gpg', 'gpg', 'gnupg2', 'checks signing keys', 'optional'),
  tool('curl', 'curl', 'curl', 'downloads kernel RPMs', 'optional'),
  tool('git', 'git', 'git', 'takes modules from git trees', 'optional'),
  tool('genext2fs', 'genext2fs', 'genext2fs', 'makes disk images', 'optional'),
  tool('flex', 'flex', 'flex', 'builds kernels', 'optional'),
  tool('bison', 'bison', 'bison', 'builds kernels', 'optional'),
  tool('bc', 'bc', 'bc', 'builds kernels', 'optional'),
  tool('crash', 'crash', 'crash', 'analyses dumps', 'optional'),
  tool('makedumpfile', 'makedumpfile', 'makedumpfile', 'checks and converts dumps', 'optional'),
] as const satisfies Tool[];

/** What kernels are built with beside programs. */
export const kernelHeaders = [
  { file: '/usr/include/libelf.h', debian: 'libelf-dev' },
  { file: '/usr/include/openssl/opensslv.h', debian: 'libssl-dev' },
] as const;

/** Libraries that the tools of Debian's kernel headers load, and headers: no program of ours tells that one is missing. */
export const libraries = [
  { file: '/usr/lib/x86_64-linux-gnu/libelf.so.1', debian: 'libelf1' },
  ...kernelHeaders,
];

/** What only loopanic's own tests use. */
export const testTools = [
  { program: 'dockerd', debian: 'docker.io' },
  { program: 'createrepo_c', debian: 'createrepo-c' },
  { program: 'shellcheck', debian: 'shellcheck' },
  { program: 'chromium', debian: 'chromium' },
  { program: 'redis-server', debian: 'redis-server' },
  { program: 'ip', debian: 'iproute2' },
  { program: 'openssl', debian: 'openssl' },
] as const;

export type Program = (typeof tools)[number]['program'];

/** What takes to run a guest whose parts are made. */
export const GUEST_PROGRAMS = ['qemu-system-x86_64', 'setpriv', 'cpio'] as const satisfies readonly Program[];

function tool<const P extends string>(
  program: P,
  debian: string,
  fedora: string,
  purpose: string,
  need: Tool['need'] = 'needed',
): Tool & { program: P } {
  return { program, debian, fedora, purpose, need };
}

/** Full path of a program: PATH, then the sbin folders that a plain user's PATH may lack. Undefined if it is not there. */
export async function findProgram(program: string): Promise<string | undefined> {
  const dirs = [...(process.env.PATH ?? '').split(delimiter).filter(Boolean), '/usr/sbin', '/sbin'];
  for (const dir of dirs) {
    const path = join(dir, program);
    if (await isExecutable(path)) return path;
  }
  return undefined;
}

/** Full path of a program, or a UsageError that names the package to install. */
export async function needProgram(program: Program): Promise<string> {
  const path = await findProgram(program);
  if (path) return path;
  const known = tools.find((entry) => entry.program === program);
  throw new UsageError(
    'missing-tool',
    `${program} is not installed: run 'loopanic setup', or install the package ${known?.debian} (dnf: ${known?.fedora})`,
  );
}
