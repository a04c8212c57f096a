import { cp, mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { buildOnce } from '../../base/files.js';
import { cacheDir, imagesDir } from '../../base/paths.js';
import { silentProgress } from '../../base/progress.js';
import { bugOf } from '../../bug/family.js';
import { ensureModulesArchives } from '../../image/kernel-modules.js';
import { ensureBuildTree } from '../../kernel/build-tree.js';
import { ensureKernel } from '../../kernel/fetch.js';
import { stockModulePath } from '../../kernel/kernel.js';
import { ensureModule } from '../../module/module.js';
import { loadScenario } from '../../scenario/load-scenario.js';
import { guestModules } from '../../trial/plan.js';

/** A kernel's RPMs in CentOS 7's layout, made with rpmbuild from Debian's kernel. */
export interface KernelRpms {
  release: string;
  kernel: string;
  devel: string;
  debuginfo: string;
  source: string;
}

/**
 * Makes them once per Debian kernel. As in CentOS: /boot has image and configuration, modules are xz-compressed, /usr/src/kernels has the
 * headers, the debug package has vmlinux, and the source package a tarball. Only modules that a guest loads are in it, only the module's
 * own files in the source, and its vmlinux a stand-in with the right banner: the layout is what is tested. As in CentOS 7.6 its own
 * libiscsi_tcp, source and .ko, is without the fix.
 */
export async function kernelRpms(): Promise<KernelRpms> {
  const kernel = await ensureKernel('debian-6.1', silentProgress);
  const { release } = kernel;
  const gate = bugOf('iscsi-slab').module;
  const { scenario } = await loadScenario('xfs-loopback');
  const dir = cacheDir('test', `kernel-rpms-${kernel.key}-unfixed3`);
  await buildOnce(dir, async (out) => {
    const tree = await ensureBuildTree(kernel, silentProgress);
    const unfixed = await ensureModule('unpatched', { kernel, gate }, silentProgress);
    const archives = await ensureModulesArchives(kernel, guestModules(kernel, scenario), ['ext4']);
    const top = `${out}.rpmbuild`;
    const root = join(top, 'root');
    await mkdir(join(root, 'boot'), { recursive: true });
    await cp(kernel.vmlinuz, join(root, 'boot', `vmlinuz-${release}`));
    await cp(kernel.config, join(root, 'boot', `config-${release}`));
    await cp(unfixed.file, stockModulePath({ modulesRoot: root, release }, gate));
    await execa(
      'sh',
      [
        '-c',
        `cpio -idm --quiet < "$1" && cpio -idmu --quiet < "$2"`,
        'sh',
        archives.guest,
        archives.capture ?? '',
      ],
      { cwd: root },
    );
    await execa(
      'sh',
      [
        '-c',
        `find lib/modules -name '*.ko' -print0 | xargs -0 xz && rm -f lib/modules/*/modules.dep* lib/modules/*/modules.alias*`,
      ],
      { cwd: root },
    );
    await execa('ln', ['-s', `/usr/src/kernels/${release}`, join(root, 'lib/modules', release, 'build')]);
    const devel = join(root, 'usr/src/kernels', release);
    await mkdir(join(root, 'usr/src/kernels'), { recursive: true });
    const [common, own] = [tree.headers.replace(/-amd64$/, '-common'), tree.headers];
    await execa('cp', ['-a', common, devel]);
    for (const name of await readdir(own))
      if (!['Makefile', 'scripts', 'tools'].includes(name)) await execa('cp', ['-a', join(own, name), devel]);
    for (const name of ['scripts', 'tools']) {
      await rm(join(devel, name));
      await execa('cp', ['-a', `${join(common, name)}/.`, join(devel, name)]);
    }
    const debug = join(root, 'usr/lib/debug/lib/modules', release);
    await mkdir(debug, { recursive: true });
    await writeFile(
      join(top, 'vmlinux.c'),
      `const char banner[] = "Linux version ${release} (for tests)"; int main(void) { return banner[0]; }\n`,
    );
    await execa('gcc-12', ['-g', '-o', join(debug, 'vmlinux'), join(top, 'vmlinux.c')]);
    const name = `linux-${release}`;
    await mkdir(join(top, 'SOURCES'), { recursive: true });
    await cp(tree.source ?? '', join(top, name), { recursive: true });
    await execa('patch', ['-p1', '-i', join(imagesDir, 'modules/libiscsi_tcp/unpatched.sendpage-ok.patch')], {
      cwd: join(top, name),
    });
    await execa('tar', ['-cJf', join(top, 'SOURCES', `${name}.tar.xz`), '-C', top, name]);
    await writeFile(join(top, 'kernel.spec'), spec(release));
    const defines = { _topdir: top, _rpmdir: out, _srcrpmdir: out, kernel_root: root };
    await execa('rpmbuild', [
      ...['-ba', '--quiet', '--target', 'x86_64'],
      ...Object.entries(defines).flatMap(([key, value]) => ['--define', `${key} ${value}`]),
      join(top, 'kernel.spec'),
    ]);
    await rm(top, { recursive: true });
  });
  const [version, revision] = rpmVersion(release);
  const file = (part: string, arch = 'x86_64'): string => `kernel${part}-${version}-${revision}.${arch}.rpm`;
  return {
    release,
    kernel: join(dir, 'x86_64', file('')),
    devel: join(dir, 'x86_64', file('-devel')),
    debuginfo: join(dir, 'x86_64', file('-debuginfo')),
    source: join(dir, file('', 'src')),
  };
}

/** RPM takes no dash in a version or release. */
function rpmVersion(release: string): [string, string] {
  const [version = '', ...rest] = release.split('-');
  return [version, rest.join('.')];
}

function spec(release: string): string {
  const [version, revision] = rpmVersion(release);
  return `
%global __os_install_post %{nil}
%global debug_package %{nil}
AutoReqProv: no
Name: kernel
Version: ${version}
Release: ${revision}
Summary: a kernel in CentOS's layout
License: GPLv2
Source0: linux-${release}.tar.xz
%description
For tests.
%package devel
Summary: headers
AutoReqProv: no
%description devel
For tests.
%package debuginfo
Summary: debug info
AutoReqProv: no
%description debuginfo
For tests.
%install
cp -a %{kernel_root}/. %{buildroot}/
%files
/boot
/lib/modules
%files devel
/usr/src/kernels
%files debuginfo
/usr/lib/debug
`;
}

/** A signing key of its own, in its own GnuPG home. */
export async function signingKey(
  dir: string,
  name: string,
): Promise<{ home: string; publicKey: string; fingerprint: string }> {
  const home = join(dir, `gnupg-${name}`);
  await mkdir(home, { mode: 0o700 });
  const gpg = (...args: string[]) => execa('gpg', ['--homedir', home, '--batch', '--quiet', ...args]);
  await gpg('--passphrase', '', '--quick-gen-key', `${name}@test`, 'rsa2048', 'sign', 'never');
  const publicKey = join(dir, `${name}.asc`);
  await gpg('--armor', '--output', publicKey, '--export');
  const { stdout } = await gpg('--with-colons', '--list-keys');
  return { home, publicKey, fingerprint: /^fpr:+([0-9A-F]{40}):/m.exec(stdout)?.[1] ?? '' };
}

/** Signs an RPM in place, and ends the agent that did it. */
export async function signRpm(file: string, name: string, home: string): Promise<void> {
  await execa(
    'rpmsign',
    [
      '--define',
      '__gpg /usr/bin/gpg',
      '--define',
      `_gpg_name ${name}@test`,
      '--define',
      `_gpg_path ${home}`,
      '--addsign',
      file,
    ],
    {
      env: { GNUPGHOME: home },
    },
  );
  await execa('gpgconf', ['--homedir', home, '--kill', 'all'], { reject: false });
}
