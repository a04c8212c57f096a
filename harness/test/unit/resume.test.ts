import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { RunFolder } from '../../results/run-folder.js';
import type { RunDocument } from '../../results/run-schema.js';
import { adoptTrials } from '../../session/resume.js';
import { tempDir } from '../support/files.js';
import { sampleRun } from '../support/sample-run.js';

/** A run of the sample's first cell, cut off as `change` says, and the same run prepared anew. */
async function cutOff(
  t: ExecutionContext,
  change: (run: RunDocument) => void,
): Promise<{ folder: RunFolder; fresh: RunDocument }> {
  const folder = await RunFolder.create(await tempDir(t));
  const earlier = sampleRun();
  earlier.cells = earlier.cells.slice(0, 1);
  const [cell] = earlier.cells;
  for (const trial of cell?.trials ?? []) trial.folder = await folder.trial(trial, trial.trial);
  const fresh = structuredClone(earlier);
  for (const entry of fresh.cells) entry.trials = [];
  change(earlier);
  await folder.save(earlier);
  return { folder, fresh };
}

test('resume: a panic counts even if the user stopped what came after it; what was cut off comes again', async (t) => {
  const { folder, fresh } = await cutOff(t, ({ cells: [cell] }) => {
    const [, , third, fourth] = cell?.trials ?? [];
    if (third) Object.assign(third, { outcome: 'reproduced', interrupted: false });
    if (fourth) Object.assign(fourth, { outcome: 'infra-error', interrupted: true });
  });
  await adoptTrials(folder, fresh);
  t.deepEqual(
    fresh.cells[0]?.trials.map(({ outcome }) => outcome),
    ['reproduced', 'reproduced', 'reproduced'],
  );
  const left = await readdir(join(folder.path, 'cells/debian-6.1+unpatched+xfs-loopback'));
  t.deepEqual(left.sort(), ['trial-001', 'trial-002', 'trial-003']);
});

test('resume: a trial whose outcome was saved counts, even if run.json does not know it yet', async (t) => {
  const { folder, fresh } = await cutOff(t, ({ cells: [cell] }) => {
    cell?.trials.splice(1);
  });
  const {
    folder: _,
    dump: __,
    analysis: ___,
    ...second
  } = sampleRun().cells[0]?.trials[1] as never as Record<string, unknown>;
  const dir = join(folder.path, 'cells/debian-6.1+unpatched+xfs-loopback/trial-002');
  await mkdir(dir, { recursive: true });
  await writeFile(join(dir, 'outcome.json'), JSON.stringify(second));
  await adoptTrials(folder, fresh);
  t.deepEqual(
    fresh.cells[0]?.trials.map(({ trial }) => trial),
    [1, 2],
  );
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
  [
    'scripts',
    (run: RunDocument) => Object.assign(run.cells[0] ?? {}, { scripts: 'x' }),
    /another scripts now/,
  ],
] as const)
  test(`resume: refused with another ${what}`, async (t) => {
    const { folder, fresh } = await cutOff(t, change);
    await t.throwsAsync(adoptTrials(folder, fresh), { message: pattern });
    t.is((await readdir(join(folder.path, 'cells/debian-6.1+unpatched+xfs-loopback'))).length, 4);
  });
