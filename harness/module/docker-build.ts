import { once } from 'node:events';
import { realpath, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import Docker from 'dockerode';
import { finishBeforeExit } from '../base/cleanup.js';
import { firstLine, InfraError, InterruptedError, UsageError } from '../base/errors.js';
import { exists, isAlive, processSpace } from '../base/files.js';
import type { Kernel } from '../kernel/kernel.js';
import { builderImage } from './builder-image.js';
import { type BuildJob, type BuildResult, headersBelow, makeArguments, timedOut } from './make.js';

const MIB = 2 ** 20;
const MEMORY_MIB = 2048;
/** Beyond the build's own limit, for the engine to end what it has. */
const GRACE_SECONDS = 30;
/** Of a line that a build says, in characters. */
const LONGEST_SHOWN = 4096;
/** nobody: what builds as root in a container might write to the host's folders as root. */
const NOBODY = 65534;

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
      const image = await builderImage(docker, imageFile, job);
      try {
        await sweep(docker);
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

/**
 * $1: the kernel's gcc series, empty if nobody knows; $2: seconds; $3: the module's file; the rest: make's arguments. What is said goes to
 * stderr, and the module to stdout: no folder of the host can be written to.
 */
const SCRIPT = `wanted=$1 seconds=$2 ko=$3
shift 3
found=$(gcc -dumpfullversion -dumpversion)
if [ -n "$wanted" ]; then
    case $found in
    "$wanted" | "$wanted".*) ;;
    *) echo "error: the builder image has gcc $found, and the kernel was built with gcc $wanted" >&2; exit 1 ;;
    esac
fi
mkdir /tmp/build && cp -r /source/. /tmp/build/ && cd /tmp/build && timeout -k 5 "$seconds" make "$@" >&2 && timeout 60 cat "/tmp/build/$ko"`;
/** No module is larger. */
const MOST_MODULE = 256 * MIB;
/** Of what a build says the last is kept. */
const MOST_SAID = 4 * MIB;

/**
 * The source that a kernel's folder was built from, by its link; null if there is none. Whatever else the link leads to is no business of a
 * build's.
 */
async function sourceOf(root: string): Promise<string | null> {
  const place = await realpath(join(root, 'source')).catch(() => null);
  if (place === null) return null;
  for (const name of ['Kconfig', 'Makefile', 'scripts/Makefile.build', 'include/linux/module.h'])
    if (!(await exists(join(place, name)))) return null;
  return place;
}

/** What has to agree between compilers: major version, for gcc 4 the minor too. */
function seriesOf(version: string): string {
  const [major = '', minor = ''] = version.split('.');
  return major !== '' && Number(major) < 5 ? `${major}.${minor}` : major;
}

/** Ends builds whose loopanic is gone: of this host and boot, by its process. */
async function sweep(docker: Docker): Promise<void> {
  const builds = await docker.listContainers({ all: true, filters: { label: ['loopanic=build'] } });
  for (const { Id, Labels } of builds)
    if (
      Labels['loopanic.space'] === JSON.stringify(processSpace()) &&
      !isAlive(Number(Labels['loopanic.owner']))
    )
      await docker
        .getContainer(Id)
        .remove({ force: true })
        .catch(() => {});
}

async function runBuild(
  docker: Docker,
  image: string,
  job: BuildJob,
  signal: AbortSignal | undefined,
): Promise<BuildResult> {
  const { tree, source, out, ko, seconds, update } = job;
  const uid = process.getuid?.() || NOBODY;
  const version = compilerVersion(job.kernel);
  // A folder of the user's names itself, and the source that it was built from, by absolute paths: those must hold inside too.
  const root = await realpath(tree.root);
  const kernelAt = root === tree.root ? '/kernel' : root;
  const outOfTree = await sourceOf(root);
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
    Labels: {
      loopanic: 'build',
      'loopanic.owner': String(process.pid),
      'loopanic.space': JSON.stringify(processSpace()),
    },
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
      Mounts: mounts.map((mount) => ({ ...mount, Type: 'bind' as const, ReadOnly: true })),
      // The module goes through stdout: the engine is not to keep it.
      LogConfig: { Type: 'none', Config: {} },
      Tmpfs: { '/tmp': 'rw,exec,size=512m,mode=1777' },
      Memory: MEMORY_MIB * MIB,
      PidsLimit: 512,
      CapDrop: ['ALL'],
      SecurityOpt: ['no-new-privileges'],
      AutoRemove: true,
    },
  });
  let isLate = false;
  const gone = container.wait({ condition: 'removed' });
  gone.catch(() => {});
  const kill = (): void => void container.kill().catch(() => {});
  signal?.addEventListener('abort', kill, { once: true });
  // What runs in it may have stopped or replaced the program that should end it.
  const limit = setTimeout(
    () => {
      isLate = true;
      kill();
    },
    (seconds + GRACE_SECONDS) * 1000,
  );
  try {
    const stream = await container.attach({ stream: true, stdout: true, stderr: true });
    const [module, text] = [new PassThrough(), new PassThrough()];
    const built: Buffer[] = [];
    let bytes = 0;
    module.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > MOST_MODULE) kill();
      else built.push(chunk);
    });
    let output = '';
    text.on('data', (chunk: Buffer) => {
      output = (output + chunk.toString('utf8')).slice(-MOST_SAID);
      const line = output.slice(-LONGEST_SHOWN).trim().split('\n').at(-1);
      if (line) update(line);
    });
    docker.modem.demuxStream(stream, module, text);
    const ended = once(stream, 'end');
    ended.catch(() => {});
    await container.start();
    if (signal?.aborted) kill();
    update('compiling in a container');
    const { StatusCode: code } = (await gone) as { StatusCode: number };
    if (signal?.aborted) throw new InterruptedError();
    if (isLate) return { failed: true, output, ...timedOut(124, seconds) };
    if (bytes > MOST_MODULE)
      return { failed: true, output, why: `its ${ko} has more than ${MOST_MODULE / MIB} MiB` };
    if (code === 0) {
      await ended;
      await writeFile(join(out, ko), Buffer.concat(built));
    }
    return { failed: code !== 0, output, ...timedOut(code, seconds) };
  } finally {
    clearTimeout(limit);
    signal?.removeEventListener('abort', kill);
    // Gone already if it ran to its end.
    await container.remove({ force: true }).catch(() => {});
  }
}

function compilerVersion(kernel: Kernel): string {
  return kernel.compiler?.replace(/^\D+/, '') ?? '';
}
