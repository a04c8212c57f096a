import { access, constants, mkdir, readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname } from 'node:path';
import { UsageError } from '../base/errors.js';
import { writeJson } from '../base/files.js';
import { cacheDir } from '../base/paths.js';
import { host } from '../host/command.js';
import { needProgram } from '../host/tools.js';
import type { Accel } from './qemu-args.js';

const PROBE_SECONDS = 8;

/** Which accelerator guests run on, and why. */
export interface AccelChoice {
  accel: Accel;
  reason: string;
}

/**
 * Decides how guests run. KVM counts only after a guest has printed its first kernel line under it: a /dev/kvm that opens proves nothing
 * (nested hosts where the guest then hangs exist). The answer is cached for this host and boot. `kernel` is the image to probe with.
 * Throws UsageError if `wanted` is kvm and it does not work.
 */
export async function chooseAccel(wanted: 'auto' | Accel, kernel: string | null): Promise<AccelChoice> {
  if (wanted === 'tcg') return { accel: 'tcg', reason: 'asked for' };
  const probe = await kvmProbe(kernel);
  if (probe.accel === 'kvm' || wanted === 'auto') return probe;
  throw new UsageError('no-kvm', `KVM is not usable here (${probe.reason}): use --accel auto or tcg`);
}

async function kvmProbe(kernel: string | null): Promise<AccelChoice> {
  const open = await access('/dev/kvm', constants.R_OK | constants.W_OK).then(
    () => null,
    (error: NodeJS.ErrnoException) =>
      error.code === 'ENOENT' ? 'there is no /dev/kvm' : '/dev/kvm is not accessible',
  );
  if (open) return { accel: 'tcg', reason: open };
  if (kernel === null) return { accel: 'tcg', reason: 'KVM not probed yet: no kernel is fetched to boot' };
  const bootId = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
  const cached = cacheDir('probes', `kvm-${hostname()}-${bootId}.json`);
  const known = await readFile(cached, 'utf8').catch(() => null);
  if (known !== null) return JSON.parse(known) as AccelChoice;
  const answer = await bootProbe(kernel);
  await mkdir(dirname(cached), { recursive: true, mode: 0o700 });
  await writeJson(cached, answer);
  return answer;
}

async function bootProbe(kernel: string): Promise<AccelChoice> {
  const [setpriv, qemu] = [await needProgram('setpriv'), await needProgram('qemu-system-x86_64')];
  const machine = [
    '-nodefaults',
    '-no-user-config',
    '-display',
    'none',
    '-no-reboot',
    '-machine',
    'pc',
    '-m',
    '512M',
  ];
  const guest = [
    '-serial',
    'stdio',
    '-kernel',
    kernel,
    '-append',
    'console=ttyS0 earlyprintk=ttyS0 panic=-1',
  ];
  const child = host(
    setpriv,
    ['--pdeathsig', 'KILL', '--', qemu, ...machine, '-accel', 'kvm', '-cpu', 'max', ...guest],
    { reject: false, stdin: 'ignore', timeout: PROBE_SECONDS * 1000, killSignal: 'SIGKILL' },
  );
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString('latin1');
    if (output.includes('Linux version')) child.kill('SIGKILL');
  });
  const result = await child;
  if (output.includes('Linux version')) return { accel: 'kvm', reason: 'a probe guest booted under KVM' };
  const words = result.stderr.split('\n')[0] ?? '';
  const reason = result.timedOut
    ? `/dev/kvm is there, but a probe guest printed no kernel line within ${PROBE_SECONDS} s`
    : `/dev/kvm is there, but a probe guest did not start: ${words || `QEMU ended with ${result.exitCode ?? result.signal}`}`;
  return { accel: 'tcg', reason };
}
