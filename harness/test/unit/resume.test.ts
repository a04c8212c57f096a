import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { silentProgress } from '../../base/progress.js';
import { RunFolder } from '../../results/run-folder.js';
import type { RunDocument } from '../../results/run-schema.js';
import { adoptTrials } from '../../run/resume.js';
import { judgeInRun } from '../../verdict/judge-run.js';
import { tempDir } from '../support/files.js';
import { sampleRun } from '../support/sample-run.js';

const CELL = 'cells/debian-6.1+unpatched+xfs-loopback';

/** A run of the sample's first cell, cut off as `change` says, and the same run prepared anew. */
async function cutOff(
  t: ExecutionContext,
  change: (run: RunDocument) => void,
): Promise<{ folder: RunFolder; fresh: RunDocument }> {
  const folder = await RunFolder.create(await tempDir(t));
  const earlier = sampleRun();
  earlier.cells = earlier.cells.slice(0, 1);
  const fresh = structuredClone(earlier);
  for (const entry of fresh.cells) entry.trials = [];
  change(earlier);
  for (const cell of earlier.cells) Object.assign(cell, judgeInRun(earlier, cell));
  for (const trial of earlier.cells[0]?.trials ?? []) {
    await folder.trial(trial, trial.trial);
    await saveOutcome(folder, trial);
  }
  await folder.save(earlier);
  return { folder, fresh };
}

async function saveOutcome(folder: RunFolder, trial: object & { folder: string }): Promise<void> {
  const { folder: place, dump: _, analysis: __, ...outcome } = trial as Record<string, unknown>;
  await mkdir(join(folder.path, String(place)), { recursive: true });
  await writeFile(join(folder.path, String(place), 'outcome.json'), JSON.stringify(outcome));
}

/** The sample's second trial, as if its run had not come to record it. */
const second = () => structuredClone(sampleRun().cells[0]?.trials[1]) as RunDocument['cells'][0]['trials'][0];
const onlyFirst = ({ cells: [cell] }: RunDocument): void => void cell?.trials.splice(1);

test('resume: every trial stays, what was cut off too, and its folder', async (t) => {
  const { folder, fresh } = await cutOff(t, ({ cells: [cell] }) => {
    const [, , third, fourth] = cell?.trials ?? [];
    if (third) Object.assign(third, { outcome: 'reproduced', interrupted: false });
    if (fourth) Object.assign(fourth, { outcome: 'infra-error', interrupted: true });
  });
  await adoptTrials(folder, fresh, silentProgress);
  t.deepEqual(
    fresh.cells[0]?.trials.map(({ outcome }) => outcome),
    ['reproduced', 'reproduced', 'reproduced', 'infra-error', 'reproduced'],
  );
  t.is((await readdir(join(folder.path, CELL))).length, 5);
});

test('resume: a trial whose outcome was saved counts, even if run.json does not know it yet', async (t) => {
  const { folder, fresh } = await cutOff(t, onlyFirst);
  await saveOutcome(folder, second());
  await adoptTrials(folder, fresh, silentProgress);
  t.deepEqual(
    fresh.cells[0]?.trials.map(({ trial }) => trial),
    [1, 2],
  );
});

for (const [what, change, pattern] of [
  ['cell', { module: 'pageslab' }, /its outcome is of the module pageslab/],
  ['trial', { trial: 3 }, /its outcome is of trial 3/],
  ['build or program', { cellKey: 'other' }, /of another build, plan or program/],
] as const)
  test(`resume: the outcome of another ${what} is refused, and stays where it is`, async (t) => {
    const { folder, fresh } = await cutOff(t, onlyFirst);
    await saveOutcome(folder, { ...second(), ...change });
    await t.throwsAsync(adoptTrials(folder, fresh, silentProgress), { message: pattern });
    t.deepEqual(await readdir(join(folder.path, CELL)), ['trial-001', 'trial-002']);
  });

test('resume: a survivor without the plan to read its logs by is damage', async (t) => {
  const { folder, fresh } = await cutOff(t, onlyFirst);
  const survived = { outcome: 'survived', ended: { why: 'finished' } };
  await saveOutcome(folder, { ...second(), ...survived });
  await t.throwsAsync(adoptTrials(folder, fresh, silentProgress), {
    message: /trial-002 has no plan\.json to read its logs by, so nothing shows that it survived/,
  });
});

test('resume: a trial that is missing is damage, and nothing behind it is removed', async (t) => {
  const { folder, fresh } = await cutOff(t, () => {});
  await rm(join(folder.path, CELL, 'trial-002'), { recursive: true });
  await t.throwsAsync(adoptTrials(folder, fresh, silentProgress), {
    message: /trial-002\/outcome\.json is not there/,
  });
  t.is((await readdir(join(folder.path, CELL))).length, 4);
});

const TOKEN = 'c0ffee00';
const plan = {
  ...{
    kernel: 'debian-6.1',
    module: 'unpatched',
    trial: 2,
    cellKey: 'key of unpatched xfs-loopback',
    seed: 5,
  },
  ...{ token: TOKEN, accel: 'tcg', profile: { hardenedUsercopyBuilt: true } },
  expected: {
    ...{ hardenedUsercopy: 'on', release: '6.1.0', module: { srcversion: 'ABC', buildId: 'f00d' } },
    ...{
      filesystem: 'xfs',
      sectorSize: 512,
      blockSize: 4096,
      nomerges: 0,
      transport: {},
      slubMinOrder: 3,
      slubMaxOrder: null,
    },
    ...{ redZone: false, onlineCpus: 1, loopback: true, allocationGroups: 128, writebackCentiseconds: null },
    ...{ cycles: 6, proof: [] },
  },
  scenario: { name: 'xfs-loopback', bug: 'iscsi-slab', target: 'tgtd', where: 'loopback' },
};
const console = (...lines: string[]): string =>
  [`loopanic:${TOKEN}:1: up`, `loopanic:${TOKEN}:2: phase modules`, ...lines]
    .map((line, index) => `[${String(5 + index).padStart(5)}.000000] ${line}\n`)
    .join('');
const USERCOPY = [
  "usercopy: Kernel memory exposure attempt detected from SLUB object 'kmalloc-512' (offset 0, size 1024)!",
  'kernel BUG at mm/usercopy.c:101!',
];

for (const [what, log, outcome, odd] of [
  ['nothing was said', console(), 'infra-error', 0],
  ['half a panic', console(...USERCOPY), 'other-crash', 1],
  ['a warning', console('WARNING: CPU: 0 PID: 1 at net/core/skbuff.c:1 skb_x+0x1/0x2'), 'warned', 1],
] as const)
  test(`resume: a trial that was cut off is judged by its logs: ${what} is ${outcome}`, async (t) => {
    const { folder, fresh } = await cutOff(t, onlyFirst);
    const dir = join(folder.path, CELL, 'trial-002');
    await mkdir(dir);
    await writeFile(join(dir, 'plan.json'), JSON.stringify(plan));
    await writeFile(join(dir, 'serial.log'), log);
    await writeFile(
      join(dir, 'guest.log'),
      `@${TOKEN} module.srcversion ABC\n@${TOKEN} module.buildId f00d\n`,
    );
    await adoptTrials(folder, fresh, silentProgress);
    const [cell] = fresh.cells;
    t.is(cell?.trials[1]?.outcome, outcome, cell?.trials[1]?.reason);
    t.is(cell && judgeInRun(fresh, cell).statistics.odd, odd);
    t.deepEqual(await readdir(dir), ['guest.log', 'outcome.json', 'plan.json', 'serial.log']);
    // What was adopted is read again as it is.
    await adoptTrials(
      folder,
      structuredClone({ ...fresh, cells: fresh.cells.map((one) => ({ ...one, trials: [] })) }),
      silentProgress,
    );
  });

test('resume: logs without a plan to read them by are damage; a folder that was just made is a trial that never began', async (t) => {
  const { folder, fresh } = await cutOff(t, onlyFirst);
  const dir = join(folder.path, CELL, 'trial-002');
  await mkdir(dir);
  await writeFile(join(dir, 'serial.log'), 'x');
  await t.throwsAsync(adoptTrials(folder, structuredClone(fresh), silentProgress), {
    message: /has logs, but no plan\.json/,
  });
  await rm(join(dir, 'serial.log'));
  await adoptTrials(folder, fresh, silentProgress);
  t.like(fresh.cells[0]?.trials[1], { outcome: 'infra-error', interrupted: true });
});

for (const [what, change, pattern] of [
  ['boots', (run: RunDocument) => (run.request.trials = 7), /its trials was 7, not 2/],
  ['dump', (run: RunDocument) => (run.request.dump = 'none'), /its dump was none, not kdump/],
  ['accelerator', (run: RunDocument) => (run.host.accel = 'kvm'), /its accel was kvm, not tcg/],
  [
    'kernel build',
    (run: RunDocument) => Object.assign(run.cells[0]?.kernelInfo ?? {}, { key: 'x' }),
    /another kernelInfo now/,
  ],
  ['program', (run: RunDocument) => (run.versions.code = 'x'), /its code was x, not c0de/],
  ['QEMU', (run: RunDocument) => (run.versions.qemu = 'x'), /its qemu was x, not QEMU/],
  [
    'scripts',
    (run: RunDocument) => Object.assign(run.cells[0] ?? {}, { scripts: 'x' }),
    /another scripts now/,
  ],
] as const)
  test(`resume: refused with another ${what}`, async (t) => {
    const { folder, fresh } = await cutOff(t, change);
    await t.throwsAsync(adoptTrials(folder, fresh, silentProgress), { message: pattern });
    t.is((await readdir(join(folder.path, CELL))).length, 5);
  });
