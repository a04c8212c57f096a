import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type Docker from 'dockerode';
import * as z from 'zod';
import { firstLine, InfraError, UsageError } from '../base/errors.js';
import { contentKey } from '../base/files.js';
import { openGiven } from '../base/given-file.js';
import { imagesDir } from '../base/paths.js';
import { readYaml } from '../base/yaml-file.js';
import { host } from '../host/command.js';
import { needProgram } from '../host/tools.js';
import type { BuildJob } from './make.js';

const buildersSchema = z.array(
  z.strictObject({
    compiler: z.string().describe('beginning of what a kernel says that it was built with'),
    dir: z.string().describe('folder with a Dockerfile, below vm-images/builders'),
    args: z.record(z.string(), z.string()).default({}),
  }),
);

/**
 * The image that a kernel's modules are built in: from a file, or built once from a registry's base image (vm-images/builders). Throws UsageError if it
 * cannot be had, or has volumes.
 */
export async function builderImage(
  docker: Docker,
  file: string | undefined,
  job: BuildJob,
): Promise<BuilderImage> {
  const image = file === undefined ? await registryImage(docker, job) : await importImage(docker, file, job);
  try {
    await refuseVolumes(docker, image.name);
    return image;
  } catch (error) {
    await image.forget();
    if (error instanceof UsageError) throw error;
    throw new InfraError('docker-failed', `the Docker engine failed: ${firstLine(error)}`, error);
  }
}

/** A volume of an image's is a folder of the engine's host, as large as its disk. Throws UsageError. */
async function refuseVolumes(docker: Docker, name: string): Promise<void> {
  const { Config } = await docker.getImage(name).inspect();
  const volumes = Object.keys(Config.Volumes ?? {});
  if (volumes.length > 0)
    throw new UsageError(
      'bad-builder-image',
      `the builder image has volumes (${volumes.join(', ')}), which no build needs: this is not taken`,
    );
}

export interface BuilderImage {
  name: string;
  /** Removes what was brought in for this build only. */
  forget: () => Promise<void>;
}

/**
 * An image from a file: `docker save`'s, or a root file system as a tarball. Compressed or not. While it is used it has a name of its own, and
 * the names that it brought are taken away again: an image that somebody else has, or brings meanwhile, keeps those of theirs, and stays.
 */
async function importImage(docker: Docker, file: string, { update }: BuildJob): Promise<BuilderImage> {
  const repo = `loopanic-builder-${process.pid}-${contentKey(file, String(Math.random()))}`;
  const name = `${repo}:file`;
  const tar = await needProgram('tar');
  await (await openGiven(file, 'no-builder-image')).close();
  const listing = await host(tar, ['-tf', file, '--occurrence=1', 'manifest.json'], { reject: false });
  const forget = (): Promise<void> => untag(docker, name);
  update(`importing the builder image ${file.replace(/.*\//, '')}`);
  try {
    if (listing.failed) {
      const said = await collect(await docker.importImage(file, { repo, tag: 'file' }));
      const failure = /"error":"([^"]*)"/.exec(said)?.[1];
      if (failure) throw new Error(failure);
      return { name, forget };
    }
    const before = await tagged(docker);
    const said = await collect(await docker.loadImage(file));
    const loaded = [...said.matchAll(/Loaded image(?: ID)?: (\S+?)(?:\\n|"|\s|$)/g)].map(
      ([, one = '']) => one,
    );
    const [first] = loaded;
    if (first === undefined)
      throw new Error(`the engine did not say what it loaded: ${said.trim().split('\n').at(-1)}`);
    await docker.getImage(first).tag({ repo, tag: 'file' });
    for (const tag of loaded.filter((one) => !one.startsWith('sha256:'))) {
      const id = before.get(tag);
      if (id === undefined) await untag(docker, tag);
      else {
        const colon = tag.lastIndexOf(':');
        await docker.getImage(id).tag({ repo: tag.slice(0, colon), tag: tag.slice(colon + 1) });
      }
    }
    return { name, forget };
  } catch (error) {
    await forget();
    throw new UsageError(
      'bad-builder-image',
      `--builder-image ${file}: the engine does not take it: ${firstLine(error)}`,
      error,
    );
  }
}

/** Takes a name away from an image, which goes if that was its last, and nobody uses it. */
async function untag(docker: Docker, name: string): Promise<void> {
  await docker
    .getImage(name)
    .remove({ force: false })
    .catch(() => {});
}

/** Every name of an image that the engine has, and which image it is. */
async function tagged(docker: Docker): Promise<Map<string, string>> {
  const images = await docker.listImages();
  return new Map(images.flatMap(({ Id, RepoTags }) => (RepoTags ?? []).map((tag) => [tag, Id] as const)));
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
