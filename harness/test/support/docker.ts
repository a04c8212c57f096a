import { mkdir, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import Docker from 'dockerode';
import { execa } from 'execa';
import { exists, scratchDir } from '../../base/files.js';
import { cacheDir } from '../../base/paths.js';
import { mmdebstrap } from '../../image/mmdebstrap.js';

/** A Docker engine of a test's own: private socket, no bridge, no firewall rules. */
export interface Engine {
  /** For DOCKER_HOST. */
  host: string;
  docker: Docker;
  stop: () => Promise<void>;
}

/** Starts dockerd with everything below `dir`, which must be on a file system that overlay2 takes. */
export async function startEngine(dir: string): Promise<Engine> {
  const socket = join(dir, 'docker.sock');
  const child = execa(
    'dockerd',
    [
      ...['--host', `unix://${socket}`, '--data-root', join(dir, 'data'), '--exec-root', join(dir, 'exec')],
      ...['--pidfile', join(dir, 'pid'), '--bridge=none', '--iptables=false', '--ip-forward=false'],
    ],
    { reject: false, all: true, cleanup: true },
  );
  const docker = new Docker({ socketPath: socket });
  const end = performance.now() + 60_000;
  while (
    !(await docker.ping().then(
      () => true,
      () => false,
    ))
  ) {
    if (child.exitCode !== null || performance.now() > end) {
      child.kill('SIGKILL');
      throw new Error(`dockerd did not start: ${(await child).all?.split('\n').slice(-5).join(' | ')}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  return {
    host: `unix://${socket}`,
    docker,
    stop: async () => {
      child.kill('SIGTERM');
      await child;
    },
  };
}

/** Root file system with Debian 12's compiler, as a tarball; made once. */
export async function builderTarball(): Promise<string> {
  const file = cacheDir('test', 'builder-bookworm.tar');
  if (await exists(file)) return file;
  await using scratch = await scratchDir('builder');
  const temp = join(scratch.path, 'builder.tar');
  const packages = ['gcc', 'make', 'libelf1'];
  const options = ['--variant=apt', '--format=tar'];
  await mmdebstrap(
    { name: 'builder', suite: 'bookworm', packages, options, target: temp, temp: scratch.path },
    () => {},
  );
  await mkdir(dirname(file), { recursive: true, mode: 0o700 });
  await rename(temp, file);
  return file;
}
