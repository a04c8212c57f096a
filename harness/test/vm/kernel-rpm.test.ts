import {
  copyFile,
  cp,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { basename, join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { execa } from 'execa';
import { cacheDir } from '../../base/paths.js';
import { runSchema } from '../../results/run-schema.js';
import { loopanic } from '../support/cli.js';
import { tempDir } from '../support/files.js';
import { type KernelRpms, kernelRpms, signingKey, signRpm } from '../support/kernel-rpm.js';

let rpms: KernelRpms;
const ID = 'test-rpm';

test.before(async () => {
  rpms = await kernelRpms();
});
test.after.always(async () => {
  for (const id of [ID, 'test-repo', 'test-forced']) await loopanic(['kernel', 'rm', id]);
});

const add = (kernel: string, ...args: string[]) =>
  loopanic(['kernel', 'add', kernel, '--id', ID, ...args], { timeoutSeconds: 120 });

/** Changes one byte near the end: the payload. */
async function damage(file: string): Promise<void> {
  const handle = await open(file, 'r+');
  const { size } = await handle.stat();
  const byte = Buffer.alloc(1);
  await handle.read(byte, 0, 1, size - 100);
  await handle.write(Buffer.from([~(byte[0] ?? 0) & 255]), 0, 1, size - 100);
  await handle.close();
}

test.serial('a signed RPM is taken; a re-signed, an unsigned and a damaged one are refused', async (t) => {
  const dir = await tempDir(t);
  const [vendor, other] = [await signingKey(dir, 'vendor'), await signingKey(dir, 'other')];
  const [good, resigned, damaged] = ['good.rpm', 'resigned.rpm', 'damaged.rpm'].map((name) =>
    join(dir, name),
  ) as [string, string, string];
  await copyFile(rpms.kernel, good);
  await signRpm(good, 'vendor', vendor.home);
  await copyFile(rpms.kernel, resigned);
  await signRpm(resigned, 'other', other.home);
  await copyFile(good, damaged);
  await damage(damaged);
  const refused = async (file: string, pattern: RegExp, ...args: string[]): Promise<void> => {
    const { code, stderr } = await add(file, ...args);
    t.is(code, 2, stderr);
    t.regex(stderr, pattern);
  };
  await refused(
    resigned,
    /loopanic: resigned\.rpm is signed by another key than .*vendor\.asc: .*key ID [0-9a-f]{8}/,
    '--key',
    vendor.publicKey,
  );
  await refused(rpms.kernel, /is not signed, so nothing shows that it comes from/, '--key', vendor.publicKey);
  await refused(damaged, /loopanic: damaged\.rpm is damaged: .*BAD/, '--key', vendor.publicKey);
  await refused(damaged, /damaged\.rpm is damaged: .*BAD/);
  await refused(
    rpms.kernel,
    /is not signed, .*; --key FILE names another key, --no-verify takes it as it is/,
  );
  await refused(resigned, /is signed by another key than /);
  // What belongs to a kernel is asked for a signature as the kernel is.
  await refused(good, /kernel-devel-.*\.rpm is not signed/, '--key', vendor.publicKey, '--devel', rpms.devel);
  t.notRegex((await loopanic(['kernel', 'ls'])).stdout, /^test-rpm /m);
  const { code, stdout, stderr } = await add(good, '--key', vendor.publicKey, '--json');
  t.is(code, 0, stderr);
  t.like(JSON.parse(stdout), {
    id: ID,
    origin: 'rpm',
    release: rpms.release,
    compiler: 'gcc 12.2.0',
    unfit: [],
  });
  t.regex(JSON.parse(stdout).packages[0].signature, /RSA\/SHA512 Signature, key ID [0-9a-f]{8}/);
});

test.serial("a kernel in CentOS's layout: unpatched panics, compound-head is clean", async (t) => {
  const added = await add(
    rpms.kernel,
    '--devel',
    rpms.devel,
    '--source',
    rpms.source,
    '--debuginfo',
    rpms.debuginfo,
    '--no-verify',
  );
  t.is(added.code, 0, added.stderr);
  const results = await tempDir(t);
  const verdictOf = async (module: string) => {
    const args = [
      'run',
      'xfs-loopback',
      '--kernel',
      ID,
      '--module',
      module,
      '--dump',
      'none',
      '--json',
      '--results',
      results,
    ];
    const { code, stdout, stderr } = await loopanic(args, { timeoutSeconds: 280 });
    t.is(code, 0, stderr);
    return runSchema.parse(JSON.parse(stdout)).cells[0];
  };
  const panicked = await verdictOf('unpatched');
  t.is(panicked?.verdict, 'panics');
  t.is(panicked?.kernelInfo?.origin, 'rpm');
  const clean = await verdictOf('compound-head');
  t.is(clean?.verdict, 'clean');
  t.not(clean?.moduleInfo?.srcversion, panicked?.moduleInfo?.srcversion);
  const list = JSON.parse((await loopanic(['kernel', 'ls', '--json'])).stdout);
  const row = list.find((entry: { id: string }) => entry.id === ID);
  t.deepEqual(row.modules, ['stock', 'compound-head']);
  t.true(row.debugInfo);
});

test.serial('bisect: the kernel whose own module panics is the first bad one', async (t) => {
  const words = ['--good', 'debian-6.1', '--bad', ID, '--kernels', 'debian-6.1', '--kernels', ID];
  const more = [
    '--confidence',
    '0.8',
    '--trials',
    '3',
    '--dump',
    'none',
    '--json',
    '--results',
    await tempDir(t),
  ];
  const { code, stdout, stderr } = await loopanic(['bisect', ...words, ...more], { timeoutSeconds: 290 });
  t.is(code, 0, stderr);
  const { good, bad, undecided, confidence, text, steps } = JSON.parse(stdout);
  t.deepEqual([good, bad, undecided], ['debian-6.1', ID, []]);
  t.true(confidence >= 0.8);
  t.regex(text, /with at least \d+ % confidence in all$/);
  // A good end takes two runs: its first boot, and those that it is judged by, beside its positive control's.
  t.deepEqual(
    steps.map(({ kernel, verdict, runs }: { kernel: string; verdict: string; runs: string[] }) => [
      kernel,
      verdict,
      runs.length,
    ]),
    [
      [ID, 'panics', 1],
      ['debian-6.1', 'clean', 2],
    ],
  );
});

test.serial(
  'a kernel that cannot show the bug is refused with the reason, and taken with --force',
  async (t) => {
    const dir = await tempDir(t);
    await execa('sh', ['-c', 'bsdtar -xf "$1"', 'sh', rpms.kernel], { cwd: dir });
    const config = join(dir, 'boot', `config-${rpms.release}`);
    await writeFile(
      config,
      (await readFile(config, 'utf8')).replace(
        'CONFIG_HARDENED_USERCOPY=y',
        '# CONFIG_HARDENED_USERCOPY is not set',
      ),
    );
    const args = ['kernel', 'add', dir, '--id', 'test-forced'];
    const refused = await loopanic(args);
    t.is(refused.code, 2);
    t.regex(
      refused.stderr,
      /cannot show the bug: CONFIG_HARDENED_USERCOPY is not set: without the check that panics; --force/,
    );
    const forced = await loopanic([...args, '--force', '--json']);
    t.is(forced.code, 0, forced.stderr);
    t.is(JSON.parse(forced.stdout).unfit.length, 1);
  },
);

test.serial('what is unpacked stays in its folder, and a folder of the user is not changed', async (t) => {
  const dir = await tempDir(t);
  await execa('sh', ['-c', 'bsdtar -xf "$1"', 'sh', rpms.kernel], { cwd: dir });
  const tree = join(dir, 'elsewhere');
  await rename(join(dir, 'lib/modules', rpms.release), tree);
  await symlink(tree, join(dir, 'lib/modules', rpms.release));
  await mkdir(join(tree, 'extra'));
  const before = (await readdir(tree, { recursive: true })).sort();
  const added = await loopanic(['kernel', 'add', dir, '--id', 'test-forced']);
  t.is(added.code, 0, added.stderr);
  t.deepEqual((await readdir(tree, { recursive: true })).sort(), before);

  // One RPM brings a link out of its folder, a second one a file through it.
  const outside = join(dir, 'outside');
  await mkdir(outside);
  const spec = (name: string, install: string, file: string): string =>
    `Name: ${name}\nVersion: 1\nRelease: 1\nSummary: x\nLicense: x\nBuildArch: noarch\nAutoReqProv: no\n%description\nx\n%install\nmkdir -p %{buildroot}/boot\n${install}\n%files\n${file}\n`;
  const make = async (name: string, install: string, file: string): Promise<string> => {
    await writeFile(join(dir, `${name}.spec`), spec(name, install, file));
    await execa('rpmbuild', [
      '-bb',
      '--quiet',
      '--define',
      `_topdir ${dir}/rb`,
      '--define',
      `_rpmdir ${dir}`,
      join(dir, `${name}.spec`),
    ]);
    return join(dir, 'noarch', `${name}-1-1.noarch.rpm`);
  };
  const link = await make('link', `ln -s ${outside} %{buildroot}/boot/esc`, '/boot/esc');
  const through = await make(
    'through',
    'mkdir %{buildroot}/boot/esc; echo x >%{buildroot}/boot/esc/pwned',
    '/boot/esc/pwned',
  );
  await loopanic(['kernel', 'add', rpms.kernel, link, through, '--id', 'test-forced', '--no-verify'], {
    timeoutSeconds: 100,
  });
  t.deepEqual(await readdir(outside), []);
});

test.serial('a package of more files than a kernel has is refused, and nothing of it is left', async (t) => {
  const [dir, cache] = [await tempDir(t), await tempDir(t)];
  const root = join(dir, 'root');
  await mkdir(join(root, 'DEBIAN'), { recursive: true });
  await mkdir(join(root, 'lib/many'), { recursive: true });
  await writeFile(
    join(root, 'DEBIAN/control'),
    'Package: many\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: many\n',
  );
  await execa('sh', ['-c', 'seq 205000 | xargs touch'], { cwd: join(root, 'lib/many') });
  await execa('dpkg-deb', ['-Zgzip', '-z1', '-b', root, join(dir, 'many.deb')]);
  const { code, stderr } = await loopanic(['kernel', 'add', join(dir, 'many.deb'), '--no-verify'], {
    env: { XDG_CACHE_HOME: cache },
    timeoutSeconds: 200,
  });
  t.is(code, 2, stderr);
  t.regex(stderr, /unpacks to more than .* or 200000 files/);
  t.deepEqual(await readdir(join(cache, 'loopanic/tmp')), []);
});

test.serial(
  'source and headers of another kernel are refused, and another source makes another kernel',
  async (t) => {
    const dir = await tempDir(t);
    const source = join(dir, 'source');
    await mkdir(join(source, 'drivers/scsi'), { recursive: true });
    await execa(
      'sh',
      ['-c', 'bsdtar -xOf "$1" "linux-*.tar.xz" | tar -xJ --strip-components=1', 'sh', rpms.source],
      { cwd: source },
    );
    await writeFile(join(source, 'Makefile'), 'VERSION = 3\nPATCHLEVEL = 10\nSUBLEVEL = 0\n');
    const withSource = () =>
      loopanic(
        [
          'kernel',
          'add',
          rpms.kernel,
          '--devel',
          rpms.devel,
          '--source',
          source,
          '--id',
          'test-forced',
          '--no-verify',
          '--json',
        ],
        {
          timeoutSeconds: 100,
        },
      );
    const foreign = await withSource();
    t.is(foreign.code, 2);
    t.regex(foreign.stderr, /source: is the source of 3\.10, not of 6\.1/);
    await rm(join(source, 'Makefile'));
    t.is((await withSource()).code, 0);
    const build = async (): Promise<{ srcversion: string }[]> =>
      JSON.parse(
        (
          await loopanic(['module', 'build', 'compound-head', '--kernel', 'test-forced', '--json'], {
            timeoutSeconds: 60,
          })
        ).stdout,
      );
    const [one] = await build();
    const file = join(source, 'drivers/scsi/libiscsi_tcp.c');
    await writeFile(file, `${await readFile(file, 'utf8')}static int __maybe_unused changed;\n`);
    t.is((await withSource()).code, 0);
    const [other] = await build();
    t.not(one?.srcversion, other?.srcversion);
  },
);

test.serial('fetch: repository metadata, signature, resumed downloads, and nothing unverified', async (t) => {
  const dir = await tempDir(t);
  const vendor = await signingKey(dir, 'vendor');
  const repo = join(dir, 'repo');
  await mkdir(repo);
  const files = { kernel: rpms.kernel, devel: rpms.devel, sources: rpms.source };
  for (const file of Object.values(files)) {
    await copyFile(file, join(repo, basename(file)));
    await signRpm(join(repo, basename(file)), 'vendor', vendor.home);
  }
  await execa('createrepo_c', ['--quiet', repo]);
  const config = join(dir, 'config');
  await mkdir(join(config, 'loopanic'), { recursive: true });
  const ref = (file: string): string => `{mirror: m, repo: ., path: ${basename(file)}}`;
  const write = (fingerprint: string) =>
    writeFile(
      join(config, 'loopanic/kernels.yaml'),
      `keys:
  vendor: {file: ${vendor.publicKey}, fingerprint: ${fingerprint}}
mirrors:
  m: {url: 'file:///nowhere', key: vendor}
kernels:
  test-repo:
    origin: rpm
    version: ${rpms.release.replace(/^([^-]+)-(.*)$/, (_, v, r) => `${v}-${r.replaceAll('-', '.')}`)}
    release: ${rpms.release}
    kernel: [${ref(files.kernel)}]
    devel: ${ref(files.devel)}
    sources: ${ref(files.sources)}
    summary: for tests
    stock: {verdict: panics, source: made so}
`,
    );
  await write(vendor.fingerprint);
  const env = { XDG_CONFIG_HOME: config, LOOPANIC_M: `file://${repo}` };
  const fetch = (...args: string[]) =>
    loopanic(['kernel', 'fetch', 'test-repo', ...args], { env, timeoutSeconds: 100 });

  // What another key signed, with metadata that fits it.
  await write('A'.repeat(40));
  const wrongKey = await fetch();
  t.is(wrongKey.code, 2);
  t.regex(
    wrongKey.stderr,
    new RegExp(`is not vendor's key alone: it holds ${vendor.fingerprint}, and should hold A{40} only`),
  );
  await write(vendor.fingerprint);

  // Damaged after the metadata was made.
  const target = join(repo, basename(files.kernel));
  await cp(target, `${target}.good`);
  await damage(target);
  const damaged = await fetch();
  t.is(damaged.code, 3);
  t.regex(
    damaged.stderr,
    /its sha256 is [0-9a-f]{64}, the repository's metadata says [0-9a-f]{64}: it was discarded/,
  );
  await cp(`${target}.good`, target);
  await rm(`${target}.good`);

  // A server that hangs up half-way: the next command goes on from there.
  const server = await halvingServer(t, repo, basename(files.kernel));
  env.LOOPANIC_M = server.url;
  const cut = await fetch();
  t.is(cut.code, 3);
  t.regex(cut.stderr, /run the same command again to go on from here/);
  const good = await fetch('--json');
  t.is(good.code, 0, good.stderr);
  t.regex(server.ranges.at(-1) ?? '', /^bytes=[1-9]\d+-$/);
  const packages: { signature: string }[] = JSON.parse(good.stdout).packages;
  t.is(packages.length, 3);
  for (const { signature } of packages) t.regex(signature, /Signature, key ID/);
  t.deepEqual(
    (await readdir(cacheDir('downloads'))).filter((name) => name.includes(basename(files.kernel))),
    [],
  );
});

/** Serves a folder on 127.0.0.1. Of `file` the first request gets half; what ranges later ones ask for is kept. */
async function halvingServer(
  t: ExecutionContext,
  dir: string,
  file: string,
): Promise<{ url: string; ranges: string[] }> {
  const ranges: string[] = [];
  let cut = false;
  const server = createServer(async (request, response) => {
    const name = decodeURIComponent(request.url ?? '').replace(/^\/(\.\/)?/, '');
    const content = await readFile(join(dir, name)).catch(() => null);
    if (content === null) {
      response.writeHead(404).end();
      return;
    }
    const range = request.headers.range;
    const from = Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? 0);
    if (name === file && cut && range) ranges.push(range);
    response.writeHead(from > 0 ? 206 : 200, {
      'content-length': content.length - from,
      ...(from > 0 ? { 'content-range': `bytes ${from}-${content.length - 1}/${content.length}` } : {}),
    });
    if (name === file && !cut) {
      cut = true;
      response.write(content.subarray(0, content.length / 2), () =>
        setTimeout(() => response.destroy(), 100),
      );
    } else response.end(content.subarray(from));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => server.close());
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, ranges };
}
