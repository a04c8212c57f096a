import { createReadStream, createWriteStream } from 'node:fs';
import { copyFile, cp, mkdir, readdir, rename, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import * as z from 'zod';
import { UsageError } from '../base/errors.js';
import { exists, scratchDir, sha256OfFile } from '../base/files.js';
import { readGiven } from '../base/given-file.js';
import type { Progress } from '../base/progress.js';
import { shellQuote } from '../base/shell-word.js';
import { command } from '../host/command.js';
import { needProgram } from '../host/tools.js';
import { cellName } from '../report/cell-state.js';
import { RunFolder } from '../results/run-folder.js';
import type { RunCell, RunTrial } from '../results/run-schema.js';
import { scenarioSchema } from '../scenario/scenario-schema.js';
import { openInitramfs } from '../trial/payload.js';
import { filesOf, kernelArgs, planTrial, type TrialPlan } from '../trial/plan.js';
import { qemuArgs } from '../vm/qemu-args.js';
import { makeSshKeys } from '../vm/ssh.js';
import { checkNames, prepare, type RunRequest } from './prepare.js';

/** A trial that is to be handed on. */
export interface BundleRequest {
  results: string;
  run: string;
  /** Of the cell: its name (kernel+module+scenario), or a part of it that no other has. */
  cell: string;
  trial: number;
  output?: string | undefined;
  build: RunRequest['build'];
}

/** What is read of a trial's plan.json. */
const savedPlanSchema = z.object({
  seed: z.int(),
  token: z.string().regex(/^[0-9a-f]{8}$/),
  dump: z.enum(['kdump', 'qmp', 'none']),
  accel: z.enum(['kvm', 'tcg']),
  scenario: z.record(z.string(), z.unknown()),
  parts: z.record(z.string(), z.string().nullable()),
});
const MOST_PLAN_MIB = 4;

/**
 * Packs one trial so that others can boot it again with QEMU alone: kernel, initramfs, LUN, QEMU's arguments in a script, and what it left behind. Every
 * part must be the one that the trial was made of. Returns the archive's path and hash. Throws UsageError if a part is another by now.
 */
export async function makeBundle(
  request: BundleRequest,
  signal: AbortSignal,
  progress: Progress,
): Promise<{ file: string; sha256: string }> {
  const folder = await RunFolder.open(request.results, request.run);
  const run = await folder.read();
  const cell = cellOf(run.cells, request.cell);
  const trial = cell.trials.find(({ trial: number }) => number === request.trial);
  if (!trial)
    throw new UsageError(
      'bad-usage',
      `bundle: ${cellName(cell)} has ${cell.trials.length === 0 ? 'no trials' : `trials 1 to ${cell.trials.length}`}, not ${request.trial}`,
    );
  const left = join(folder.path, trial.folder);
  const saved = await readPlan(join(left, 'plan.json'));
  const { plan, files } = await planAgain(cell, trial, saved, request, signal, progress);
  const name = `loopanic-${run.run}-${cellName(cell)
    .replace(/[^\w.+-]/g, '_')
    .slice(0, 120)}-${request.trial}`;
  const target = resolve(request.output ?? `${name}.tar.gz`);
  if (await exists(target)) throw new UsageError('bad-output', `${target}: is there already`);
  return progress.step(`packing ${name}`, async (update) => {
    await using scratch = await scratchDir('bundle');
    const dir = join(scratch.path, name);
    await mkdir(dir);
    update('kernel and initramfs');
    await copyFile(files.kernel, join(dir, 'kernel'));
    const initramfs = await openInitramfs(plan, files, makeSshKeys(), false, 'both');
    try {
      await pipeline(
        createReadStream('', { fd: initramfs.fd, start: 0, autoClose: false }),
        createWriteStream(join(dir, 'initramfs.cpio')),
      );
    } finally {
      await initramfs[Symbol.asyncDispose]();
    }
    await copyFile(files.module, join(dir, 'module.ko'));
    const sparse = async (from: string | null, to: string): Promise<void> => {
      if (from !== null) await command('cp', ['--sparse=always', '--', from, join(dir, to)]);
    };
    update('disks');
    await sparse(files.lun, 'lun.img');
    await sparse(files.rootDisk, 'root.img');
    update('what it left behind');
    await mkdir(join(dir, 'original'));
    // The memory of a guest is large, and comes again.
    for (const entry of await readdir(left, { withFileTypes: true }))
      if (entry.isFile() && !/^vmcore(?:\.flat)?$/.test(entry.name))
        await cp(join(left, entry.name), join(dir, 'original', entry.name));
    await writeFile(join(dir, 'boot.sh'), bootScript(plan, trial), { mode: 0o755 });
    await writeFile(join(dir, 'README.txt'), readme(cell, trial, plan, run.versions));
    await writeFile(join(dir, 'SOURCES.txt'), sources(cell));
    update('hashes');
    await writeFile(join(dir, 'SHA256SUMS'), await hashes(dir));
    update('archive');
    const packed = join(scratch.path, 'bundle.tar.gz');
    await command(await needProgram('tar'), [
      ...['--sparse', '--owner=0', '--group=0', '-C', scratch.path, '-czf', packed, name],
    ]);
    // Beside its place first: it is there whole or not at all.
    await command('cp', ['--', packed, `${target}.part`]);
    await rename(`${target}.part`, target);
    return { file: target, sha256: await sha256OfFile(target) };
  });
}

function cellOf(cells: readonly RunCell[], wanted: string): RunCell {
  const exact = cells.filter((cell) => cellName(cell) === wanted);
  const found = exact.length > 0 ? exact : cells.filter((cell) => cellName(cell).includes(wanted));
  const [only] = found;
  if (only !== undefined && found.length === 1) return only;
  throw new UsageError(
    'no-cell',
    `bundle: ${wanted}: ${found.length === 0 ? 'is no cell of this run' : 'is more than one cell'}: ${(found.length === 0 ? cells : found).map(cellName).join(', ')}`,
  );
}

async function readPlan(file: string): Promise<z.infer<typeof savedPlanSchema>> {
  const text = (await readGiven(file, MOST_PLAN_MIB, 'bad-run')).toString();
  try {
    return savedPlanSchema.parse(JSON.parse(text));
  } catch (error) {
    throw new UsageError('bad-run', `${file}: is not the plan of a trial`, error);
  }
}

/** The trial's plan, made once more from the parts that are on this host, which must be those that it was made of. */
async function planAgain(
  cell: RunCell,
  trial: RunTrial,
  saved: z.infer<typeof savedPlanSchema>,
  { results, build }: BundleRequest,
  signal: AbortSignal,
  progress: Progress,
): Promise<{ plan: TrialPlan; files: ReturnType<typeof filesOf> }> {
  const { name: _, ...definition } = saved.scenario;
  const known = scenarioSchema.safeParse(definition);
  if (!known.success) throw new UsageError('bad-run', `bundle: the plan of ${trial.folder} has no scenario`);
  if (known.data.where === 'peer')
    throw new UsageError('bad-usage', 'bundle: a trial of two guests cannot be bundled yet');
  const after = (option: string): string | undefined => {
    const at = cell.repeat.indexOf(option);
    return at < 0 ? undefined : cell.repeat[at + 1];
  };
  const again: RunRequest = {
    ...{ command: 'bundle', trials: 1, retries: 0, results, build, keepDumps: 'none' },
    ...{ dump: saved.dump, accel: saved.accel, image: cell.image.name },
    cells: [
      {
        kernel: cell.kernel,
        module: after('--module') ?? cell.module,
        scenario: cell.repeat[1] ?? cell.scenario,
      },
    ],
    // As it was adjusted on the command line, if it was.
    adjust: {
      scenario: (own) => ({ ...own, ...known.data, target: known.data.target ?? own.target }),
      options: [],
    },
  };
  const { prepared } = await prepare(again, 'bundle', await checkNames(again), progress, signal);
  const parts = prepared[0]?.parts;
  if (!parts) throw new UsageError('bad-run', `bundle: ${cellName(cell)} cannot be made any more`);
  const plan = { ...planTrial(parts, trial.trial, trial.seed, saved.dump), token: saved.token };
  const others = Object.entries(plan.parts).filter(([key, value]) => saved.parts[key] !== value);
  if (others.length > 0)
    throw new UsageError(
      'bad-run',
      `bundle: of what this trial was made of, ${others.map(([key]) => key).join(', ')} ${others.length === 1 ? 'is another' : 'are others'} on this host by now`,
    );
  return { plan, files: filesOf(parts) };
}

/** Boots what is beside it, shows its console, and says whether it ended as the original did. */
function bootScript(plan: TrialPlan, { outcome }: RunTrial): string {
  const { cpus, possibleCpus, memoryMiB } = plan.scenario.vm;
  const args = qemuArgs(
    {
      accel: plan.accel,
      ...{ cpus, memoryMiB, kernel: 'kernel', kernelArgs: kernelArgs(plan) },
      ...(possibleCpus === undefined ? {} : { possibleCpus }),
      ...(plan.parts.lun === null ? {} : { disk: 'lun.img' }),
      ...(plan.rootDisk ? { rootDisk: 'root.img' } : {}),
      ...(plan.dump === 'kdump'
        ? { dumpPorts: { dmesg: 'out/vmcore-dmesg.txt', vmcore: 'out/vmcore.flat' } }
        : {}),
    },
    { console: 'out/serial.log', guest: 'out/guest.log' },
  );
  const line = args.map((word, index) => {
    if (args[index - 1] === '-initrd') return 'initramfs.cpio';
    if (args[index - 1] === '-accel') return null;
    // What loopanic itself talks to QEMU through.
    if (/^(?:-chardev|-mon)$/.test(word) && /(?:id|chardev)=qmp\b/.test(args[index + 1] ?? ''))
      return undefined;
    if (/(?:id|chardev)=qmp\b/.test(word)) return undefined;
    return word;
  });
  const words = line.flatMap((word) =>
    word === undefined ? [] : [word === null ? '"$accel"' : shellQuote(word)],
  );
  const silence = plan.scenario.limits.stallSeconds * 4;
  return `#!/bin/sh
# Boots this trial again: needs QEMU and a POSIX shell. Nothing outside out/ is changed; the disks are written to as snapshots only.
# usage: ./boot.sh [tcg|kvm]   (it ran under ${plan.accel})
cd "$(dirname "$0")" || exit 2
accel=\${1:-${plan.accel}}
[ "$accel" = tcg ] && accel=tcg,thread=multi
rm -rf out && mkdir out || exit 2
: >out/serial.log
qemu-system-x86_64 ${words.join(' ')} &
qemu=$!
trap 'kill $qemu 2>/dev/null' EXIT
trap 'exit 130' INT TERM
shown=0 quiet=0 ended=
while kill -0 $qemu 2>/dev/null && [ -z "$ended" ]; do
    sleep 1
    lines=$(($(wc -l <out/serial.log)))
    if [ "$lines" -gt "$shown" ]; then
        sed -n "$((shown + 1)),\${lines}p" out/serial.log
        shown=$lines quiet=0
    else
        quiet=$((quiet + 1))
    fi
    if grep -q 'loopanic:${plan.token}:[0-9]*: ended' out/serial.log; then ended=survived
    elif grep -q 'loopanic:${plan.token}:[0-9]*: failed' out/serial.log; then ended=failed
    elif grep -q 'kernel BUG at\\|Kernel panic' out/serial.log; then
${
  plan.dump === 'kdump'
    ? `        # The crash kernel writes out/vmcore.flat (makedumpfile -R vmcore <out/vmcore.flat makes a plain one of it).
        if grep -q 'loopanic:${plan.token}:.*capture \\(done\\|failed\\)' out/serial.log || [ "$quiet" -ge 60 ]; then ended=panicked; fi`
    : `        [ "$quiet" -ge 5 ] && ended=panicked`
}
    elif [ "$quiet" -ge ${silence} ]; then ended=hung
    fi
done
kill $qemu 2>/dev/null
wait $qemu 2>/dev/null
grep -h 'usercopy:\\|kernel BUG at\\|Kernel panic' out/serial.log | head -n 3
echo "loopanic bundle: it \${ended:-ended by itself}; in the original it ${ENDINGS[outcome] ?? outcome}"
[ "$ended" = '${ENDINGS[outcome] ?? ''}' ]
`;
}

/** How boot.sh calls what it sees. */
const ENDINGS: Partial<Record<RunTrial['outcome'], string>> = {
  reproduced: 'panicked',
  'other-crash': 'panicked',
  survived: 'survived',
  warned: 'survived',
  hung: 'hung',
};

function readme(
  cell: RunCell,
  trial: RunTrial,
  plan: TrialPlan,
  versions: { loopanic: string; qemu: string },
): string {
  return `${cellName(cell)}, trial ${trial.trial}: ${trial.outcome}: ${trial.reason}

./boot.sh boots it again (QEMU for x86-64 and a POSIX shell; loopanic is not needed), shows the console, and says whether it ended as it did here: exit 0.
Its random choices are those of the seed ${plan.seed}; when things happen is not: a panic may take another cycle, or a boot without one.

kernel            as QEMU starts it, of ${cell.kernelInfo?.release ?? cell.kernel}
initramfs.cpio    userland, the kernel's modules, the workload, and the module under test at /${plan.modulePath}
module.ko         that module (${cell.moduleInfo?.source.join(', ') || cell.module}), sha256 ${plan.parts.module}
lun.img           the disk that the target serves${plan.parts.lun === null ? ': none, it keeps its data in memory' : `, with its ${plan.scenario.filesystem.type} file system`}
original/         what the trial left here: console, what the guest told, outcome, plan, analysis
SHA256SUMS        of all of these but the disks, which the archive's own hash covers; SOURCES.txt: where the programs in it are from

Made by loopanic ${versions.loopanic}; the trial ran with ${versions.qemu} under ${plan.accel}.
`;
}

/** Whose the parts are, and under what licence. */
function sources(cell: RunCell): string {
  const packages = (cell.kernelInfo?.packages ?? []).map(
    ({ name, version, sha256 }) => `    ${name} ${version}${sha256 === undefined ? '' : ` sha256 ${sha256}`}`,
  );
  return `Linux kernel and modules: GPL-2.0-only (with the syscall note). From:
${packages.join('\n') || `    ${cell.kernel}`}
  Their source: the distribution's source package of the same version (Debian: apt-get source linux=VERSION).
Module under test: GPL-2.0-only, from the same source${cell.moduleInfo?.source.length ? ` with: ${cell.moduleInfo.source.join(', ')}` : ''}.
Userland in initramfs.cpio and root.img (image ${cell.image.name}): programs of the distribution's packages, each under its own licence
  (/usr/share/doc/PACKAGE/copyright in the package; apt-get source PACKAGE gives its source).
Scripts of the guest and the workload: loopanic, Apache-2.0.
`;
}

/** Of all but the disks: they are mostly holes, and many GiB long; the archive's own hash covers them. */
async function hashes(dir: string): Promise<string> {
  const names = (await readdir(dir, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile() && !/^(?:lun|root)\.img$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
  const lines: string[] = [];
  for (const name of names) lines.push(`${await sha256OfFile(name)}  ${name.slice(dir.length + 1)}\n`);
  return lines.join('');
}
