import { access, chown, readFile, realpath } from 'node:fs/promises';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import Docker from 'dockerode';
import * as z from 'zod';
import { finishBeforeExit } from '../base/cleanup.js';
import { firstLine, InfraError, InterruptedError, UsageError } from '../base/errors.js';
import { contentKey } from '../base/files.js';
import { imagesDir } from '../base/paths.js';
import { readYaml } from '../base/yaml-file.js';
import { host } from '../host/command.js';
import { needProgram } from '../host/tools.js';
import type { Kernel } from '../kernel/kernel.js';
import { type BuildJob, type BuildResult, headersBelow, makeArguments, timedOut } from './make.js';

const MIB = 2 ** 20;
const MEMORY_MIB = 2048;
/** nobody: what builds as root in a container might write to the host's folders as root. */
const NOBODY = 65534;

const buildersSchema = z.array(
  z.strictObject({
    compiler: z.string().describe('beginning of what a kernel says that it was built with'),
    dir: z.string().describe('folder with a Dockerfile, below vm-images/builders'),
    args: z.record(z.string(), z.string()).default({}),
  }),
);

/** True if a Docker engine answers (DOCKER_HOST, or the default socket). */
export async function engineAnswers(): Promise<boolean> {
  return new Docker().ping().then(
    () => true,
    () => false,
  );
}

/**
 * Builds in a container: no network, sources read only, no root, no capabilities, bounded memory, processes and time. The container and
 * an image that was imported from a file are gone when this returns; should loopanic be killed, the build's own limit ends the container,
 * which then removes itself. Throws UsageError if there is no engine, InfraError if the engine fails.
 */
export async function buildInContainer(
  job: BuildJob,
  imageFile: string | undefined,
  signal: AbortSignal | undefined,
): Promise<BuildResult> {
  const docker = new Docker();
  await docker.ping().catch((error: unknown) => {
    throw new UsageError(
      'no-docker',
      `no Docker engine answers (${firstLine(error)}): start one, set DOCKER_HOST, or give --builder host`,
      error,
    );
  });
  return finishBeforeExit(
    (async () => {
      const image =
        imageFile === undefined
          ? await registryImage(docker, job)
          : await importImage(docker, imageFile, job);
      try {
        return await runBuild(docker, image.name, job, signal);
      } catch (error) {
        if (error instanceof InterruptedError || error instanceof UsageError) throw error;
        throw new InfraError('docker-failed', `the Docker engine failed: ${firstLine(error)}`, error);
      } finally {
        await image.forget();
      }
    })(),
  );
}

/** $1: the kernel's gcc series, empty if nobody knows; $2: seconds; $3: the module's file; the rest: make's arguments. */
const SCRIPT = `wanted=$1 seconds=$2 ko=$3
shift 3
found=$(gcc -dumpfullversion -dumpversion)
if [ -n "$wanted" ]; then
    case $found in
    "$wanted" | "$wanted".*) ;;
    *) echo "error: the builder image has gcc $found, and the kernel was built with gcc $wanted"; exit 1 ;;
    esac
fi
mkdir /tmp/build && cp -r /source/. /tmp/build/ && cd /tmp/build && timeout -k 5 "$seconds" make "$@" && cp "/tmp/build/$ko" /out/`;

/** What has to agree between compilers: major version, for gcc 4 the minor too. */
function seriesOf(version: string): string {
  const [major = '', minor = ''] = version.split('.');
  return major !== '' && Number(major) < 5 ? `${major}.${minor}` : major;
}

async function runBuild(
  docker: Docker,
  image: string,
  job: BuildJob,
  signal: AbortSignal | undefined,
): Promise<BuildResult> {
  const { tree, source, out, ko, seconds, update } = job;
  const uid = process.getuid?.() || NOBODY;
  if (process.getuid?.() === 0) await chown(out, NOBODY, NOBODY);
  const version = compilerVersion(job.kernel);
  // A folder of the user's names itself, and the source that it was built from, by absolute paths: those must hold inside too.
  const root = await realpath(tree.root);
  const kernelAt = root === tree.root ? '/kernel' : root;
  const outOfTree = await realpath(join(root, 'source')).catch(() => null);
  const mounts = [
    { Source: root, Target: kernelAt },
    ...(outOfTree === null ? [] : [{ Source: outOfTree, Target: outOfTree }]),
    { Source: source, Target: '/source' },
  ];
  const place = {
    headers: headersBelow(tree, kernelAt),
    root: kernelAt,
    dir: '/tmp/build',
    cc: 'gcc',
    version,
  };
  const container = await docker.createContainer({
    Image: image,
    User: `${uid}:${uid}`,
    Env: ['LC_ALL=C', 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'HOME=/tmp'],
    WorkingDir: '/tmp',
    Labels: { loopanic: 'build' },
    Entrypoint: [],
    Cmd: [
      ...['/bin/sh', '-c', SCRIPT, 'build', seriesOf(version), String(seconds), ko, ...makeArguments(place)],
    ],
    NetworkDisabled: true,
    AttachStdout: true,
    AttachStderr: true,
    HostConfig: {
      NetworkMode: 'none',
      ReadonlyRootfs: true,
      // Mounts, not Binds: where the engine does not see our folders (another host), it says so.
      Mounts: [
        ...mounts.map((mount) => ({ ...mount, Type: 'bind' as const, ReadOnly: true })),
        { Type: 'bind', Source: out, Target: '/out' },
      ],
      Tmpfs: { '/tmp': 'rw,exec,size=512m,mode=1777' },
      Memory: MEMORY_MIB * MIB,
      PidsLimit: 512,
      CapDrop: ['ALL'],
      SecurityOpt: ['no-new-privileges'],
      AutoRemove: true,
    },
  });
  const gone = container.wait({ condition: 'removed' });
  gone.catch(() => {});
  const kill = (): void => void container.kill().catch(() => {});
  signal?.addEventListener('abort', kill, { once: true });
  try {
    const stream = await container.attach({ stream: true, stdout: true, stderr: true });
    const text = new PassThrough();
    const output: Buffer[] = [];
    text.on('data', (chunk: Buffer) => {
      output.push(chunk);
      const line = chunk.toString('utf8').trim().split('\n').at(-1);
      if (line) update(line);
    });
    docker.modem.demuxStream(stream, text, text);
    await container.start();
    if (signal?.aborted) kill();
    update('compiling in a container');
    const { StatusCode: code } = (await gone) as { StatusCode: number };
    if (signal?.aborted) throw new InterruptedError();
    return { failed: code !== 0, output: Buffer.concat(output).toString('utf8'), ...timedOut(code, seconds) };
  } finally {
    signal?.removeEventListener('abort', kill);
    // Gone already if it ran to its end.
    await container.remove({ force: true }).catch(() => {});
    // What it wrote belongs to another user: only root can need this.
    if (process.getuid?.() === 0) await host('chown', ['-R', '0:0', out]);
  }
}

function compilerVersion(kernel: Kernel): string {
  return kernel.compiler?.replace(/^\D+/, '') ?? '';
}

interface BuilderImage {
  name: string;
  /** Removes what was brought in for this build only. */
  forget: () => Promise<void>;
}

/** An image from a file: `docker save`'s, or a root file system as a tarball. Compressed or not. */
async function importImage(docker: Docker, file: string, { update }: BuildJob): Promise<BuilderImage> {
  const tag = `loopanic-builder-${process.pid}-${contentKey(file, String(Math.random()))}`;
  const tar = await needProgram('tar');
  const listing = await host(tar, ['-tf', file, '--occurrence=1', 'manifest.json'], { reject: false });
  await access(file).catch((error: unknown) => {
    throw new UsageError(
      'no-builder-image',
      `--builder-image ${file}: cannot be read (${firstLine(error)})`,
      error,
    );
  });
  const forget = await imageKeeper(docker);
  update(`importing the builder image ${file.replace(/.*\//, '')}`);
  try {
    if (!listing.failed) {
      const answer = await docker.loadImage(file);
      const said = await collect(answer);
      const name = /Loaded image(?: ID)?: (\S+?)(?:\\n|"|\s|$)/.exec(said)?.[1];
      if (!name) throw new Error(`the engine did not say what it loaded: ${said.trim().split('\n').at(-1)}`);
      return { name, forget };
    }
    const answer = await docker.importImage(file, { repo: tag, tag: 'file' });
    const said = await collect(answer);
    const failure = /"error":"([^"]*)"/.exec(said)?.[1];
    if (failure) throw new Error(failure);
    return { name: `${tag}:file`, forget };
  } catch (error) {
    await forget();
    throw new UsageError(
      'bad-builder-image',
      `--builder-image ${file}: the engine does not take it: ${firstLine(error)}`,
      error,
    );
  }
}

/** Remembers the engine's images; what it returns removes every image that came since, and gives tags back that one of them took. */
async function imageKeeper(docker: Docker): Promise<() => Promise<void>> {
  const before = await docker.listImages();
  return async () => {
    const known = new Set(before.map(({ Id }) => Id));
    for (const { Id } of await docker.listImages())
      if (!known.has(Id))
        await docker
          .getImage(Id)
          .remove({ force: true })
          .catch(() => {});
    const tags = new Set((await docker.listImages()).flatMap(({ RepoTags }) => RepoTags ?? []));
    for (const { Id, RepoTags } of before)
      for (const full of RepoTags ?? []) {
        const colon = full.lastIndexOf(':');
        if (!tags.has(full) && !full.includes('<none>'))
          await docker
            .getImage(Id)
            .tag({ repo: full.slice(0, colon), tag: full.slice(colon + 1) })
            .catch(() => {});
      }
  };
}

async function collect(stream: NodeJS.ReadableStream): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(Buffer.from(chunk as Uint8Array));
  return Buffer.concat(chunks).toString('utf8');
}

/** The image with the kernel's own compiler, built once from a registry's base image (vm-images/builders). */
async function registryImage(docker: Docker, { kernel, update }: BuildJob): Promise<BuilderImage> {
  const builders = await readYaml(join(imagesDir, 'builders/builders.yaml'), buildersSchema);
  const compiler = kernel.compiler ?? '';
  const builder = builders.find(
    (entry) => compiler === entry.compiler || compiler.startsWith(`${entry.compiler}.`),
  );
  if (!builder)
    throw new UsageError(
      'no-builder',
      `${kernel.id} was built with ${kernel.compiler ?? 'an unknown compiler'}, for which there is no builder image: give --builder-image FILE`,
    );
  const context = join(imagesDir, 'builders', builder.dir);
  const key = contentKey(await readFile(join(context, 'Dockerfile')), JSON.stringify(builder.args));
  const name = `loopanic-builder-${builder.dir}:${key}`;
  const there = await docker
    .getImage(name)
    .inspect()
    .then(
      () => true,
      () => false,
    );
  if (there) return { name, forget: async () => {} };
  update(`building the builder image ${builder.dir}`);
  const stream = await docker.buildImage(
    { context, src: ['Dockerfile'] },
    { t: name, buildargs: builder.args, labels: { loopanic: 'builder' }, rm: true, forcerm: true },
  );
  await new Promise<void>((resolve, reject) => {
    const finished = (error: Error | null): void => (error ? reject(error) : resolve());
    docker.modem.followProgress(
      stream,
      finished,
      (event: { stream?: string; status?: string; error?: string }) => {
        if (event.error) reject(new Error(event.error));
        const line = (event.stream ?? event.status ?? '').trim();
        if (line) update(line);
      },
    );
  }).catch((error: unknown) => {
    throw new UsageError(
      'no-builder-image',
      `the builder image ${builder.dir} cannot be built (${firstLine(error)}): give --builder-image FILE, or --builder host`,
      error,
    );
  });
  return { name, forget: async () => {} };
}
