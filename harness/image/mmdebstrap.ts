import { firstLine, InfraError } from '../base/errors.js';
import { host } from '../host/command.js';
import { needProgram } from '../host/tools.js';
import { debianSources } from '../package/apt.js';

export interface Bootstrap {
  /** The image's, for messages. */
  name: string;
  suite: string;
  packages: readonly string[];
  options: readonly string[];
  /** File, or `-`. */
  target: string;
  /** Folder for work in progress. */
  temp: string;
}

/** Runs mmdebstrap with the host's own mirrors. Throws InfraError with what went wrong in it. */
export async function mmdebstrap(
  { name, suite, packages, options, target, temp }: Bootstrap,
  update: (text: string) => void,
): Promise<void> {
  const [program, setpriv] = [await needProgram('mmdebstrap'), await needProgram('setpriv')];
  // As root, leftovers of a killed build stay in the cache, where they are swept. In its unprivileged mode mmdebstrap needs a folder that
  // other users can enter, which the cache is not.
  const tmp = process.getuid?.() === 0 ? { TMPDIR: temp } : {};
  const child = host(
    setpriv,
    [
      ...['--pdeathsig', 'TERM', '--', program, ...options],
      ...['--architectures=amd64', `--include=${packages.join(',')}`, suite, target, '-'],
    ],
    {
      input: `${(await debianSources(suite)).join('\n')}\n`,
      env: tmp,
      stdout: 'ignore',
    },
  );
  const said: string[] = [];
  try {
    for await (const line of child.iterable({ from: 'stderr' })) {
      said.push(String(line));
      update(String(line).replace(/^[A-Z]: /, ''));
    }
    await child;
  } catch (error) {
    const words =
      said.find((line) => line.startsWith('assemble:')) ??
      said.find((line) => line.startsWith('E:')) ??
      said.at(-1) ??
      firstLine(error);
    throw new InfraError('image-build-failed', `image ${name} could not be built: ${words}`, error);
  }
}
