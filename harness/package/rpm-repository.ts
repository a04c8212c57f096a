import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, rename, rm, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import sax from 'sax';
import { InfraError } from '../base/errors.js';
import { contentKey, scratchDir } from '../base/files.js';
import { cacheDir } from '../base/paths.js';
import { host } from '../host/command.js';
import { needProgram } from '../host/tools.js';
import { requireSigned, type SigningKey } from './rpm.js';

interface Checksum {
  /** As repodata names it: sha256, sha, … */
  type: string;
  value: string;
}
interface RepositoryFile extends Checksum {
  path: string;
  bytes: number | null;
}

/** Seconds without a byte after which a download has failed. */
const STALL_SECONDS = 60;
const MIB = 2 ** 20;
/** No package is larger: Red Hat's debug info of a kernel has 0.8 GiB. */
const MOST_PACKAGE = 4096 * MIB;
/** Of a repository: its index, and the list of its packages, packed and unpacked. */
const MOST_INDEX = 4 * MIB;
const MOST_LIST = 256 * MIB;
const MOST_UNPACKED_LIST = 4096 * MIB;

/** A place that packages are downloaded from. */
export interface Mirror {
  url: string;
  key: SigningKey;
}

/** A package on a mirror: in which repository below it, and where in that. */
export interface LocatedPackage {
  mirror: Mirror;
  repo: string;
  path: string;
}

/** A downloaded RPM, and what vouches for it. */
export interface DownloadedRpm {
  file: string;
  sha256: string;
  signature: string;
}

/**
 * Downloads a package into `dir`: resumes what an earlier command began, then compares it with the repository's metadata and checks its
 * signature against the mirror's key. `verify` false does neither. Throws InfraError if it cannot be had or is not what the repository
 * says, UsageError for a bad signature.
 */
export async function downloadRpm(
  { mirror, repo: place, path }: LocatedPackage,
  dir: string,
  update: (text: string) => void,
  verify = true,
): Promise<DownloadedRpm> {
  const name = basename(path);
  const repo = `${mirror.url}/${place}`;
  const url = `${repo}/${path}`;
  let expected: RepositoryFile | null = null;
  if (verify) {
    update(`reading the repository's metadata for ${name}`);
    expected = await findPackage(repo, path);
  }
  const parts = cacheDir('downloads');
  await mkdir(parts, { recursive: true, mode: 0o700 });
  const part = join(parts, `${contentKey(url, expected?.value ?? '')}-${name}.part`);
  await download(url, part, expected?.bytes ?? null, MOST_PACKAGE, (text) =>
    update(`downloading ${name}${text}`),
  );
  if (expected) {
    update(`checking ${name}`);
    const found = await digest(part, expected.type);
    if (found !== expected.value) {
      await rm(part);
      throw new InfraError(
        'bad-checksum',
        `${url}: its ${expected.type} is ${found}, the repository's metadata says ${expected.value}: it was discarded`,
      );
    }
  }
  const file = join(dir, name);
  await mkdir(dir, { recursive: true });
  await rename(part, file);
  const signature = verify ? await requireSigned(file, [mirror.key]) : 'not verified (--no-verify)';
  return { file, sha256: await digest(file, 'sha256'), signature };
}

async function download(
  url: string,
  part: string,
  bytes: number | null,
  most: number,
  update: (text: string) => void,
): Promise<void> {
  const over = new AbortController();
  const size = (): Promise<number> =>
    stat(part).then(
      (info) => info.size,
      () => 0,
    );
  if (bytes !== null && (await size()) === bytes) return;
  const timer = setInterval(async () => {
    if ((await size()) > most) over.abort();
    const total = bytes === null ? '' : ` of ${(bytes / MIB).toFixed(0)}`;
    update(`, ${((await size()) / MIB).toFixed(0)}${total} MiB`);
  }, 500);
  try {
    const done = await host(
      await needProgram('curl'),
      [
        // What the metadata of a repository names is no pattern, and what a server leads to no file of this host.
        ...['--globoff', '--proto', '=http,https,file', '--proto-redir', '=http,https'],
        ...['--max-filesize', String(most)],
        ...['--fail', '--location', '--silent', '--show-error', '--continue-at', '-', '--retry', '2'],
        ...[
          '--connect-timeout',
          String(STALL_SECONDS),
          '--speed-limit',
          '1',
          '--speed-time',
          String(STALL_SECONDS),
        ],
        ...['--output', part, url],
      ],
      { reject: false, cancelSignal: over.signal },
    );
    if (over.signal.aborted || (await size()) > most) {
      await rm(part, { force: true });
      throw new InfraError('download-failed', `${url}: is larger than ${most / MIB} MiB: it was discarded`);
    }
    if (done.failed) {
      const words =
        done.stderr
          .trim()
          .split('\n')
          .at(-1)
          ?.replace(/^curl: /, '') || done.shortMessage;
      throw new InfraError(
        'download-failed',
        `${url}: ${words}; run the same command again to go on from here, through a proxy (https_proxy) or from a mirror (LOOPANIC_CENTOS_VAULT), or give RPMs that are on disk to 'kernel add'`,
      );
    }
  } finally {
    clearInterval(timer);
  }
}

const metadata = new Map<string, Promise<Map<string, RepositoryFile>>>();

/** What a repository's metadata says of one of its packages. */
async function findPackage(repo: string, path: string): Promise<RepositoryFile> {
  let packages = metadata.get(repo);
  if (!packages) {
    packages = readMetadata(repo);
    packages.catch(() => {});
    metadata.set(repo, packages);
  }
  const found = (await packages).get(path);
  if (!found) throw new InfraError('not-in-repository', `${repo}: its metadata names no ${path}`);
  return found;
}

/** repodata/repomd.xml names primary.xml.gz with its checksum; that names every package with its own. */
async function readMetadata(repo: string): Promise<Map<string, RepositoryFile>> {
  await using scratch = await scratchDir('repodata');
  const get = async (path: string, name: string, most: number): Promise<string> => {
    const file = join(scratch.path, name);
    await download(`${repo}/${path}`, file, null, most, () => {});
    return file;
  };
  const index = await get('repodata/repomd.xml', 'repomd.xml', MOST_INDEX);
  const parts = await parse(index, false, 'data', (attributes) => attributes.type === 'primary');
  const [primary] = [...parts.values()];
  if (!primary?.path.endsWith('.gz') || /(?:^|\/)\.\.?(?:\/|$)|[^\w./+~-]/.test(primary.path))
    throw new InfraError('odd-repository', `${repo}: its repomd.xml names no primary.xml.gz`);
  const list = await get(primary.path, 'primary.xml.gz', MOST_LIST);
  const found = await digest(list, primary.type);
  if (found !== primary.value)
    throw new InfraError(
      'bad-checksum',
      `${repo}/${primary.path}: its ${primary.type} is not what repomd.xml says`,
    );
  return await parse(list, true, 'package', () => true);
}

/** Elements `<ELEMENT><checksum type>…</checksum><location href/><size package/></ELEMENT>` of a metadata file, by href. */
async function parse(
  file: string,
  gzipped: boolean,
  element: string,
  wanted: (attributes: Record<string, string>) => boolean,
): Promise<Map<string, RepositoryFile>> {
  const found = new Map<string, RepositoryFile>();
  const parser = sax.parser(true, { trim: true });
  let current: (Checksum & { path: string; bytes: number | null }) | null = null;
  let inChecksum = false;
  parser.onopentag = ({ name, attributes }) => {
    const given = attributes as Record<string, string>;
    if (name === element) current = wanted(given) ? { type: '', value: '', path: '', bytes: null } : null;
    if (!current) return;
    if (name === 'checksum') {
      inChecksum = true;
      current.type = given.type ?? '';
    } else if (name === 'location') current.path = given.href ?? '';
    else if (name === 'size' && given.package !== undefined) current.bytes = Number(given.package);
  };
  parser.ontext = (text) => {
    if (current && inChecksum) current.value = text;
  };
  parser.onclosetag = (name) => {
    if (name === 'checksum') inChecksum = false;
    if (name === element && current) found.set(current.path, current);
  };
  try {
    const bytes = createReadStream(file);
    const text = (gzipped ? bytes.pipe(createGunzip()) : bytes).setEncoding('utf8');
    let length = 0;
    // The parser throws what it has met on the next write.
    for await (const chunk of text) {
      length += (chunk as string).length;
      if (length > MOST_UNPACKED_LIST) throw new Error('too large');
      parser.write(chunk as string);
    }
    parser.close();
  } catch (error) {
    throw new InfraError('odd-repository', `${basename(file)}: is not repository metadata`, error);
  }
  return found;
}

async function digest(file: string, type: string): Promise<string> {
  const hash = createHash(type === 'sha' ? 'sha1' : type);
  await pipeline(createReadStream(file), hash);
  return hash.digest('hex');
}
