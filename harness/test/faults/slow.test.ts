import test from 'ava';
import type { RunDocument } from '../../results/run-schema.js';
import { FaultBench } from '../support/fault-bench.js';

// Limits scale with the speed that a guest's own boot shows. Minutes each: not part of `npm test`.
const USUAL = { silence: 60, stall: 180 };

const DROP = `tgtadm --op show --mode conn --tid 1 | awk '/Session/{s=$2} /Connection/{c=$2; print s, c}' | while read s c; do tgtadm --op delete --mode conn --tid 1 --sid $s --cid $c; done`;

for (const [what, act] of [
  ['the session is dropped by the target, and recovered, in every cycle', DROP],
  ['iscsid is killed, and the session dropped', `kill -9 $(pidof iscsid); ${DROP}`],
] as const)
  test(`a distribution's own initiator: ${what}`, (t) =>
    FaultBench.with(t, async (bench) => {
      await bench.workload(
        'drop',
        `#!/bin/sh
. /loopanic/lib.sh
work_begin
cycle=0
while [ "$cycle" -lt "$CYCLES" ]; do
    cycle=$((cycle + 1))
    need perl /loopanic/workload/sweep.pl /mnt/cycle$cycle "$ALLOCATION_GROUPS"
    (sleep 0.2; ${act}) &
    sync
    wait $!
    sleep 3
    work_cycle "$cycle"
done
work_done "$cycle"
`,
      );
      const scenario = await bench.scenario({ silence: 30, stall: 40 }, (text) =>
        text
          .replace(
            /workload:\n(?: {2}.*\n)*/,
            'workload:\n  name: drop\n  cycles: 2\n  minMergedPerCycle: 0\n',
          )
          .replace(/^summary: /m, 'image: debian-12-disk\nsummary: '),
      );
      const { trial } = await bench.run(scenario, '--module', 'stock');
      t.true(['warned', 'hung'].includes(trial.outcome), `${trial.outcome}: ${trial.reason}`);
      t.true(
        trial.warnings.some(({ text }) => text.includes('detected conn error')),
        JSON.stringify(trial.warnings),
      );
      await bench.record(`guest with iscsid: ${what}`, 'workload', trial.outcome);
      await bench.nothingGreen();
    }));

for (const module of ['stock', 'unpatched'])
  test(`a host ten times slower gives the same outcome: ${module}`, (t) =>
    FaultBench.with(t, async (bench) => {
      const scenario = await bench.scenario(USUAL, (text) => text.replace('cycles: 6', 'cycles: 2'));
      const child = bench.start(['run', scenario, '--module', module, '--json']);
      await bench.until('Linux version');
      const pid = bench.qemu();
      // A tenth of a CPU: on for 20 ms of every 200.
      let over = false;
      const throttle = (async () => {
        const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
        try {
          while (!over) {
            process.kill(pid, 'SIGSTOP');
            await pause(180);
            process.kill(pid, 'SIGCONT');
            await pause(20);
          }
        } catch {
          // It is gone.
        }
      })();
      const { stdout, stderr } = await child;
      over = true;
      await throttle;
      t.truthy(stdout, stderr);
      const run = JSON.parse(stdout) as RunDocument;
      t.is(
        run.cells[0]?.trials[0]?.outcome,
        module === 'stock' ? 'survived' : 'reproduced',
        run.cells[0]?.trials[0]?.reason,
      );
      await bench.record(
        'a tenth of a CPU',
        `all, ${module}`,
        `${run.cells[0]?.trials[0]?.outcome}, as without`,
      );
    }));
