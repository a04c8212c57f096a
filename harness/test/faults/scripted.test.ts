import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import type { Outcome } from '../../outcome/outcome-schema.js';
import { FaultBench } from '../support/fault-bench.js';

// What a real QEMU won't do on demand. One trial each; the outcome and its reason are what a reader of the report sees.
const QUICK = { silence: 3, stall: 4 };

const faults: [mode: string, outcome: Outcome, reason: RegExp][] = [
  // QEMU.
  ['refuses', 'infra-error', /QEMU did not start: .*cannot allocate memory/],
  ['mute', 'infra-error', /QEMU did not greet within 30 s/],
  ['silent', 'no-boot', /no output for 3 s in phase boot/],
  ['garbage', 'no-boot', /in phase boot/],
  ['dies', 'infra-error', /QEMU ended in phase modules: .*host memory fault/],
  ['flood', 'infra-error', /the guest sent more than 64 MiB in phase workload/],
  ['flood-without-newline', 'infra-error', /the guest sent more than 64 MiB in phase workload/],
  ...['boot', 'modules', 'target', 'login', 'mount', 'workload', 'done'].flatMap(
    (phase): [string, Outcome, RegExp][] => [
      [`killed@${phase}`, 'infra-error', new RegExp(`QEMU ended in phase ${phase}`)],
      [`reset@${phase}`, phase === 'boot' ? 'no-boot' : 'other-crash', /reset or powered itself off/],
      [`hang@${phase}`, phase === 'boot' ? 'no-boot' : 'hung', /no output for 3 s/],
      [`stalls@${phase}`, phase === 'boot' ? 'no-boot' : 'hung', /no progress for 4 s/],
    ],
  ),
  // A kernel's complaint, and then whatever ends the trial.
  ...['target', 'login', 'mount', 'workload', 'done'].map((phase): [string, Outcome, RegExp] => [
    `warn@${phase}`,
    'hung',
    /no output for 3 s in phase \w+; before: WARNING/,
  ]),
  ['warn-then-killed', 'warned', /skb_splice_from_iter.*; then QEMU ended in phase workload/],
  ['warn-then-hang', 'hung', /before: WARNING/],
  ['warn-then-step-fails', 'warned', /skb_splice_from_iter.*; then a step failed/],
  ['warn-low-merge', 'warned', /skb_splice_from_iter.*; then cycle 1 completed 1 merged/],
  ['warn-glued', 'warned', /skb_splice_from_iter/],
  ['warn-glued-unstamped', 'warned', /skb_splice_from_iter/],
  ['warn-in-the-log-alone', 'warned', /skb_splice_from_iter/],
  ['conn-error', 'warned', /detected conn error/],
  ['write-protected', 'warned', /critical target error, dev sda/],
  ['xfs-shutdown', 'warned', /Filesystem has been shut down due to log error/],
  ['writeback-error', 'warned', /writeback error on inode/],
  ['oom', 'warned', /Out of memory/],
  ['unheard-of-error', 'warned', /the frobnicator is upset/],
  ['session-moved', 'warned', /the session was dropped and recovered/],
  // Panics that are not forgotten, whatever is lacking.
  ['panic-nofacts', 'other-crash', /it panicked as sought, but .* nothing was read back/],
  ['panic-badfact', 'other-crash', /it panicked as sought, but .* module build id is beef/],
  ['half-panic', 'other-crash', /the crash report is damaged/],
  ['half-panic-after-done', 'other-crash', /the crash report is damaged/],
  ['panic-then-chatter', 'other-crash', /the crash report is damaged/],
  ['other-panic', 'other-crash', /unable to handle page fault/],
  ['boot-panic', 'no-boot', /Unable to mount root/],
  ['panic-of-a-size', 'other-crash', /its usercopy line is cut/],
  ['panic-of-nothing', 'other-crash', /kmalloc-0 is not a general-purpose kmalloc cache/],
  ['slabs-then-panic', 'other-crash', /it panicked as sought, but .*: slab order is 1, not at least/],
  ['panic-after-done', 'reproduced', /tgtd read 1024 bytes/],
  ['panic-in-the-log-alone', 'reproduced', /tgtd read 1024 bytes/],
  ['panic-twice', 'reproduced', /tgtd read 1024 bytes/],
  // Proofs that are none.
  ['lies', 'infra-error', /not what the cycles say/],
  ['done-alone', 'infra-error', /not what the cycles say/],
  ['done-twice-as-much', 'infra-error', /not what the cycles say/],
  ['ends-early', 'infra-error', /ended after 5 of 6 cycles/],
  ['cycle-missing', 'infra-error', /cycle 3 .*follows cycle 1/],
  ['cycle-twice', 'infra-error', /cycle 2 .*follows cycle 2/],
  ['phase-missing', 'infra-error', /never said that it was in phase/],
  ['one-cycle-idle', 'infra-error', /cycle 2 completed 0 merged/],
  ['writes-nothing', 'infra-error', /says that it wrote \d+ bytes to the LUN, whose disk received 0/],
  ['writes-little', 'infra-error', /says that it wrote 6 bytes to the LUN, and counts what takes \d+/],
  ['headers-cached', 'infra-error', /cycle 1 completed 0 reads of AG headers/],
  ['huge-numbers', 'infra-error', /the console is not whole/],
  ['wrong-token', 'hung', /no output/],
  ['step-fails', 'infra-error', /a step failed in the guest: mount/],
  // What is read back.
  ['usercopy-off', 'infra-error', /hardened_usercopy is off, not on/],
  ['usercopy-unknown', 'infra-error', /hardened_usercopy is unknown, not on/],
  ['facts-change', 'infra-error', /after its workload: /],
  ['facts-lost', 'infra-error', /nothing was read back from the guest after/],
  ['another-module', 'infra-error', /module build id is beef/],
  // What did not arrive.
  ['console-gap', 'warned', /skb_splice_from_iter.*; then the console is not whole/],
  ['console-cut-line', 'infra-error', /another message stands inside/],
  ['log-gap', 'infra-error', /the kernel's log is not whole: .* follows record/],
  ['log-missing', 'infra-error', /it was not sent/],
  ['log-short', 'infra-error', /records arrived; the console announces/],
  ['log-tells-another-story', 'infra-error', /the kernel's log is not whole/],
  // Guests that talk and come no further.
  ['boot-chatter', 'no-boot', /no progress for 4 s in phase boot/],
  ['cycles-for-ever', 'hung', /no progress for 4 s/],
  ['holds-unasked', 'hung', /no progress for 4 s/],
  ['ups', 'hung', /no progress for 4 s/],
  ['newlines', 'infra-error', /the guest sent more than/],
  ['marker-chatter', 'hung', /no progress for 4 s in phase workload/],
];

for (const [mode, outcome, reason] of faults)
  test(`${mode}: ${outcome}`, (t) =>
    FaultBench.scripted(t, async (bench) => {
      await bench.script(mode);
      const scenario = await bench.scenario(QUICK);
      const { code, trial, run } = await bench.run(scenario, '--module', 'unpatched');
      t.is(trial.outcome, outcome, trial.reason);
      t.regex(trial.reason, reason);
      t.is(code, outcome === 'reproduced' ? 0 : 3);
      t.is(run.cells[0]?.verdict, outcome === 'reproduced' ? 'panics' : 'inconclusive');
      t.is(trial.corrupted, outcome === 'other-crash' && !['other-panic', 'panic-of-nothing'].includes(mode));
      const saved = await readFile(join(bench.results, run.run, 'run.json'), 'utf8');
      t.deepEqual(JSON.parse(saved), JSON.parse(JSON.stringify(run)));
      const log = await stat(
        join(bench.results, run.run, run.cells[0]?.trials[0]?.folder ?? '', 'outcome.json'),
      );
      t.is(log.mode & 0o777, 0o600);
      const [what = '', phase = 'workload'] = mode.split('@');
      await bench.record(`scripted: ${what}`, phase, trial.outcome);
      await bench.nothingGreen();
    }));

for (const [mode, outcome, file] of [
  ['target-panics', 'other-crash', 'target-serial.log'],
  ['target-warns', 'warned', null],
  ['target-hangs', 'hung', null],
] as const)
  test(`two guests, ${mode}: ${outcome}`, (t) =>
    FaultBench.scripted(t, async (bench) => {
      await bench.script(mode);
      const scenario = await bench.scenario({ silence: 5, stall: 20 }, undefined, 'two-hosts');
      const { trial } = await bench.run(scenario, '--module', 'unpatched');
      t.is(trial.outcome, outcome, trial.reason);
      if (file) t.is(trial.evidence[0]?.file, file);
      await bench.record(`scripted: ${mode}`, 'login', trial.outcome);
      await bench.nothingGreen();
    }));

test('a guest that survives has survived: the fake tells the whole story', (t) =>
  FaultBench.scripted(t, async (bench) => {
    await bench.script('survive');
    const { trial } = await bench.run(await bench.scenario(QUICK), '--module', 'unpatched');
    t.is(trial.outcome, 'survived', trial.reason);
  }));
