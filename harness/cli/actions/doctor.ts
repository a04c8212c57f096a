import { mkdir, statfs } from 'node:fs/promises';
import { availableParallelism, freemem, totalmem } from 'node:os';
import { EXIT } from '../../base/errors.js';
import { exists } from '../../base/files.js';
import { cacheDir } from '../../base/paths.js';
import { findProgram, libraries, tools } from '../../host/tools.js';
import { presentIds, presentKernel } from '../../kernel/store.js';
import { chooseAccel } from '../../vm/accel.js';
import { printResult } from '../context.js';

interface Finding {
  what: string;
  state: 'ok' | 'missing' | 'note';
  need: 'needed' | 'optional';
  text: string;
  /** What to do about it. */
  mend?: string;
}

const GIB = 2 ** 30;
const [MIN_DISK, MIN_MEMORY] = [4 * GIB, 2 * GIB];

/** `loopanic doctor`: what this host can do, a line per finding, and how to mend what is missing. */
export async function doctor(args: { json: boolean }): Promise<number> {
  const findings = [
    ...(await toolFindings()),
    ...(await libraryFindings()),
    await kvmFinding(),
    await diskFinding(),
    memoryFinding(),
  ];
  const bad = findings.filter((finding) => finding.state === 'missing' && finding.need === 'needed');
  printResult(args.json, { ok: bad.length === 0, findings }, () => [
    ...findings.map(
      (finding) =>
        `${finding.state.padEnd(7)} ${finding.what}: ${finding.text}${finding.mend ? `; ${finding.mend}` : ''}`,
    ),
    bad.length === 0
      ? 'this host can run loopanic'
      : `${bad.length} needed things are missing: run 'loopanic setup'`,
  ]);
  return bad.length === 0 ? EXIT.ok : EXIT.noVerdict;
}

async function toolFindings(): Promise<Finding[]> {
  return Promise.all(
    tools.map(async ({ program, debian, fedora, purpose, need }): Promise<Finding> => {
      const path = await findProgram(program);
      if (path) return { what: program, state: 'ok', need, text: purpose };
      const mend = `install ${debian} (dnf: ${fedora})`;
      return { what: program, state: 'missing', need, text: `${need}: ${purpose}`, mend };
    }),
  );
}

async function libraryFindings(): Promise<Finding[]> {
  // Debian's paths; elsewhere a module build tells by itself.
  if (!(await findProgram('apt-get'))) return [];
  return Promise.all(
    libraries.map(async ({ file, debian }): Promise<Finding> => {
      const base = { what: debian, need: 'needed' as const, text: 'module builds load it' };
      return (await exists(file))
        ? { ...base, state: 'ok' }
        : { ...base, state: 'missing', mend: `install ${debian}` };
    }),
  );
}

async function kvmFinding(): Promise<Finding> {
  const base = { what: 'kvm', need: 'optional' as const };
  if (!(await findProgram('qemu-system-x86_64')))
    return { ...base, state: 'note', text: 'not probed: QEMU is not installed' };
  const kernels = await Promise.all((await presentIds()).map((id) => presentKernel(id)));
  const choice = await chooseAccel('auto', kernels.find((kernel) => kernel !== null)?.vmlinuz ?? null);
  if (choice.accel === 'kvm') return { ...base, state: 'ok', text: choice.reason };
  return { ...base, state: 'note', text: `${choice.reason}; guests run under TCG, 10 to 20 times slower` };
}

async function diskFinding(): Promise<Finding> {
  const dir = cacheDir();
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const { bavail, bsize } = await statfs(dir);
  const free = bavail * bsize;
  const base = {
    what: 'disk',
    need: 'needed' as const,
    text: `${(free / GIB).toFixed(1)} GiB free for the cache`,
  };
  if (free >= MIN_DISK) return { ...base, state: 'ok' };
  return { ...base, state: 'missing', mend: `free ${MIN_DISK / GIB} GiB, or point XDG_CACHE_HOME elsewhere` };
}

function memoryFinding(): Finding {
  const base = { what: 'memory', need: 'needed' as const };
  const text = `${(totalmem() / GIB).toFixed(1)} GiB, ${(freemem() / GIB).toFixed(1)} free; ${availableParallelism()} CPUs`;
  if (totalmem() >= MIN_MEMORY) return { ...base, state: 'ok', text };
  return { ...base, state: 'missing', text, mend: `a guest needs ${MIN_MEMORY / GIB} GiB on the host` };
}
