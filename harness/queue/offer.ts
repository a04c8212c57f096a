import { createReadStream } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { sha256OfFile } from '../base/files.js';
import { insideOf } from '../base/given-file.js';
import { type CellParts, filesOf } from '../trial/plan.js';
import type { Part, Parts } from './protocol.js';
import { remembered } from './remembered.js';
import { describeSparse, sparseStream } from './sparse.js';

/** The parts that a run's workers may ask for, by their content. */
export class Offer {
  readonly #paths = new Map<string, string>();
  readonly #described = new Map<string, Promise<Part>>();
  /** Disks, by the key that plans have for them. */
  readonly #disks = new Map<string, string>();
  readonly #sparse = new Map<string, Promise<Part>>();

  /** Adds what a cell is made of. */
  async add(parts: CellParts): Promise<Parts> {
    const files = filesOf(parts);
    for (const [key, path] of [
      [parts.lun?.replace(/.*\//, ''), files.lun],
      [parts.image.key, files.rootDisk],
    ] as const)
      if (key !== undefined && path !== null) this.#disks.set(key, path);
    return {
      kernel: await this.#part(files.kernel),
      crash: files.crash && {
        kernel: await this.#part(files.crash.kernel),
        initramfs: await this.#part(files.crash.initramfs),
      },
      userland: await this.#part(files.userland),
      imageScript: await this.#part(files.imageScript),
      modules: await this.#part(files.modules),
      module: await this.#part(files.module),
      workload: await this.#folder(files.workload),
      rootDisk: files.rootDisk === null ? null : parts.image.key,
      image: parts.image.name,
    };
  }

  /** A part's content; null if there is no such part. */
  open(sha256: string): NodeJS.ReadableStream | null {
    const path = this.#paths.get(sha256);
    return path === undefined ? null : createReadStream(path);
  }

  /** A disk as a sparse stream, and what that is; null if there is no such disk. */
  async openDisk(key: string): Promise<{ part: Part; stream: AsyncIterable<Buffer> } | null> {
    const path = this.#disks.get(key);
    if (path === undefined) return null;
    return { part: await this.#describeDisk(key, path), stream: sparseStream(path) };
  }

  /** What a disk is, without its content; null if there is no such disk. */
  async disk(key: string): Promise<Part | null> {
    const path = this.#disks.get(key);
    return path === undefined ? null : this.#describeDisk(key, path);
  }

  #describeDisk(key: string, path: string): Promise<Part> {
    return remembered(this.#sparse, key, () => describeSparse(path));
  }

  /** A file as it is now: a workload's may be edited while a run goes on, and then it is another part. */
  async #part(path: string): Promise<Part> {
    const { mtimeMs, size, ino } = await stat(path);
    const known = `${path} ${mtimeMs} ${size} ${ino}`;
    const part = await remembered(this.#described, known, async () => ({
      sha256: await sha256OfFile(path),
      bytes: size,
    }));
    this.#paths.set(part.sha256, path);
    return part;
  }

  async #folder(dir: string): Promise<Parts['workload']> {
    const entries = await readdir(dir, { recursive: true, withFileTypes: true });
    const files: Parts['workload'] = [];
    for (const entry of entries) {
      if (entry.isDirectory()) continue;
      const name = join(relative(dir, entry.parentPath), entry.name);
      const path = await insideOf(dir, join(dir, name));
      const isExecutable = ((await stat(path)).mode & 0o100) !== 0;
      files.push({ ...(await this.#part(path)), name, isExecutable });
    }
    return files;
  }
}
