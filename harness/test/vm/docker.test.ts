import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { contentKey } from '../../base/files.js';
import { cacheDir } from '../../base/paths.js';
import { loopanic, startLoopanic } from '../support/cli.js';
import { builderTarball, type Engine, startEngine } from '../support/docker.js';
import { tempDir } from '../support/files.js';

let engine: Engine;
let image: string;
let home: string;

test.before(async () => {
  image = await builderTarball();
  home = cacheDir('test', `engine-${process.pid}-${contentKey(String(Math.random()))}`);
  engine = await startEngine(home);
});

test.after.always(async () => {
  await engine?.stop();
  await rm(home, { recursive: true, force: true });
});

const left = async (): Promise<number> =>
  (await engine.docker.listContainers({ all: true })).length +
  (await engine.docker.listImages({ all: true })).length;

const build = (...args: string[]) =>
  loopanic(['module', 'build', '--builder', 'docker', '--builder-image', image, ...args], {
    env: { DOCKER_HOST: engine.host },
    timeoutSeconds: 200,
  });

/** The gate as it is, and one line before it. */
const patchWith = (line: string): string => `--- a/drivers/scsi/libiscsi_tcp.c
+++ b/drivers/scsi/libiscsi_tcp.c
@@ -130,3 +130,4 @@
 \t */
+${line}
 \tif (!recv && sendpage_ok(sg_page(sg)))
 \t\treturn;
`;

test.serial(
  'a module that a container builds is the one that the host builds, and nothing is left',
  async (t) => {
    const patch = join(await tempDir(t), 'comment.patch');
    await writeFile(patch, patchWith('\t/* the same in both */'));
    const inContainer = await build('--patch', patch, '--name', 'docker-test', '--json');
    t.is(inContainer.code, 0, inContainer.stderr);
    const onHost = await loopanic(
      ['module', 'build', '--builder', 'host', '--patch', patch, '--name', 'docker-test', '--json'],
      { timeoutSeconds: 100 },
    );
    t.is(onHost.code, 0, onHost.stderr);
    const [[a], [b]] = [JSON.parse(inContainer.stdout), JSON.parse(onHost.stdout)];
    t.regex(a.srcversion, /^[0-9A-F]{23}$/);
    t.is(a.srcversion, b.srcversion);
    t.is(a.vermagic, b.vermagic);
    t.is(a.buildId, b.buildId, 'bit for bit');
    t.is(await left(), 0);
  },
);

test.serial("images of somebody else's stay, whatever is imported meanwhile", async (t) => {
  const { docker } = engine;
  const theirs = async (tag: string): Promise<void> => {
    const answer = await docker.importImage(image, { repo: 'theirs', tag });
    await new Promise((resolve) => answer.on('end', resolve).resume());
  };
  await theirs('before');
  const patch = join(await tempDir(t), 'loop.patch');
  await writeFile(patch, patchWith('#include "/dev/zero"'));
  const building = build('--patch', patch, '--name', 'loops', '--build-seconds', '8');
  const running = async (): Promise<boolean> => (await docker.listContainers()).length > 0;
  const end = performance.now() + 60_000;
  while (!(await running()) && performance.now() < end)
    await new Promise((resolve) => setTimeout(resolve, 100));
  await theirs('meanwhile');
  t.is((await building).code, 2);
  const tags = (await docker.listImages()).flatMap(({ RepoTags }) => RepoTags ?? []).sort();
  t.deepEqual(tags, ['theirs:before', 'theirs:meanwhile']);
  for (const tag of tags) await docker.getImage(tag).remove();
  t.is(await left(), 0);
});

test.serial(
  'a build that loops is stopped at its limit of time, or of memory if that comes first',
  async (t) => {
    const patch = join(await tempDir(t), 'loop.patch');
    await writeFile(patch, patchWith('#include "/dev/zero"'));
    const { code, stderr } = await build('--patch', patch, '--name', 'loops', '--build-seconds', '3');
    t.is(code, 2);
    t.regex(
      stderr,
      /loopanic: module loops does not compile for debian-6\.1: (?:stopped after 3 s|gcc: fatal error: Killed)/,
    );
    t.is(await left(), 0);
  },
);

test.serial("the compiler's own line is told", async (t) => {
  const patch = join(await tempDir(t), 'broken.patch');
  await writeFile(patch, patchWith('\tbroken(;'));
  const { code, stderr } = await build('--patch', patch, '--name', 'broken');
  t.is(code, 2);
  t.regex(stderr, /^libiscsi_tcp\.c:\d+:\d+: error: /m);
  t.regex(
    stderr,
    /loopanic: module broken does not compile for debian-6\.1: libiscsi_tcp\.c:\d+:\d+: error: /,
  );
  t.is(await left(), 0);
});

test.serial(
  'a build has no network, no root and no way to write; Ctrl-C takes the container along',
  async (t) => {
    const patch = join(await tempDir(t), 'loop.patch');
    await writeFile(patch, patchWith('#include "/dev/zero"'));
    const args = [
      'module',
      'build',
      '--builder',
      'docker',
      '--builder-image',
      image,
      '--patch',
      patch,
      '--name',
      'loops',
    ];
    const child = startLoopanic(args, { DOCKER_HOST: engine.host });
    const running = async (): Promise<boolean> => (await engine.docker.listContainers()).length > 0;
    const end = performance.now() + 60_000;
    while (!(await running()) && performance.now() < end)
      await new Promise((resolve) => setTimeout(resolve, 100));
    const [container] = await engine.docker.listContainers();
    const { Config, HostConfig } = await engine.docker.getContainer(container?.Id ?? '').inspect();
    t.like(HostConfig, { NetworkMode: 'none', ReadonlyRootfs: true, CapDrop: ['ALL'], Privileged: false });
    t.not(Config.User.split(':')[0], '0');
    // Nothing of the host can be written to: what is built comes by stdout, which the engine does not keep.
    t.true(HostConfig.Mounts?.every(({ ReadOnly }) => ReadOnly === true));
    t.is(HostConfig.LogConfig?.Type, 'none');
    child.kill('SIGINT');
    t.is((await child).exitCode, 130);
    t.is(await left(), 0);
  },
);
