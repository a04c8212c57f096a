import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { packageRoot, scenariosDir } from '../../base/paths.js';
import { type CliResult, loopanic } from '../support/cli.js';
import { tempDir } from '../support/files.js';

/** Runs one trial on a QEMU that misbehaves as told, with time limits of a few seconds. */
async function runOn(
  t: ExecutionContext,
  mode: string,
  limits = 'silenceSeconds: 2',
  template = 'xfs-loopback',
): Promise<CliResult & { results: string }> {
  const dir = await tempDir(t);
  const fake = join(packageRoot, 'dist/test/support/fake-qemu.js');
  await writeFile(join(dir, 'qemu-system-x86_64'), `#!/bin/sh\nexec '${process.execPath}' '${fake}' "$@"\n`, {
    mode: 0o755,
  });
  const text = await readFile(join(scenariosDir, `${template}.yaml`), 'utf8');
  const scenario = join(dir, 'quick.yaml');
  await writeFile(scenario, text.replace(/limits:\n(?: {2}.*\n)*/, `limits:\n  ${limits}\n`));
  const env = { PATH: `${dir}:${process.env.PATH}`, FAKE_QEMU: mode };
  const results = join(dir, 'results');
  const args = ['run', scenario, '--module', 'unpatched', '--accel', 'tcg', '--json', '--results', results];
  return { ...(await loopanic(args, { env })), results };
}

for (const [mode, outcome, reason, limits] of [
  ['refuses', 'infra-error', /QEMU did not start: .*cannot allocate memory/],
  ['silent', 'no-boot', /no output for 2 s in phase boot/],
  ['stalls', 'hung', /no progress for 2 s in phase mount/, 'stallSeconds: 2'],
  ['dies', 'infra-error', /QEMU ended in phase modules: .*host memory fault/],
  ['step-fails', 'infra-error', /a step failed in the guest: mount: mount -t xfs .*wrong fs type/],
  ['lies', 'infra-error', /nothing was read back|wrote nothing/],
  ['half-panic', 'other-crash', /the crash report is damaged/],
] as const)
  test.serial(`a guest that ${mode} gives ${outcome}, exit 3, and no verdict`, async (t) => {
    const result = await runOn(t, mode, limits);
    t.is(result.code, 3, result.stderr);
    const run = JSON.parse(result.stdout);
    const [cell] = run.cells;
    t.is(cell.verdict, 'inconclusive');
    t.is(cell.trials[0].outcome, outcome);
    t.regex(cell.trials[0].reason, reason);
    t.is(cell.trials[0].corrupted, mode === 'half-panic');
    const saved = JSON.parse(await readFile(join(result.results, run.run, 'run.json'), 'utf8'));
    t.deepEqual(saved, run);
    const files = await readdir(join(result.results, run.run, cell.trials[0].folder));
    t.true(files.includes('outcome.json') && files.includes('qemu.log'), files.join(' '));
  });

test.serial('a crash of the guest with the target is the outcome of the trial', async (t) => {
  const result = await runOn(t, 'target-panics', 'silenceSeconds: 20', 'two-hosts');
  t.is(result.code, 3, result.stderr);
  const [trial] = JSON.parse(result.stdout).cells[0].trials;
  t.is(trial.outcome, 'other-crash', trial.reason);
  t.is(trial.evidence[0].file, 'target-serial.log');
  t.regex(trial.evidence[0].text, /unable to handle page fault/);
});
