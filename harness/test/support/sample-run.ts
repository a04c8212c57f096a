import type { RunCell, RunDocument, RunTrial } from '../../results/run-schema.js';
import { judgeCell } from '../../verdict/cell-verdict.js';

type Outcome = RunTrial['outcome'];

/** A run of one cell of each kind, with text in it that reports have to take care of. */
export function sampleRun(): RunDocument {
  const control = { kernel: 'debian-6.1', module: 'unpatched', scenario: 'xfs-loopback' };
  const cells = [
    cell('unpatched', 'xfs-loopback', ['reproduced', 'reproduced', 'reproduced', 'survived'], {
      expected: 'panics',
    }),
    cell('compound-head', 'xfs-loopback', ['survived', 'infra-error', 'survived'], {
      expected: 'clean',
      control,
    }),
    cell('pageslab', 'xfs-loopback', ['reproduced'], { expected: 'clean', control }),
    cell('a|b <script>alert(1)</script> # & "x"\u0007', 'nomerges', ['hung'], { control }),
    cell('unpatched', 'sectors-4k', [], { control }),
  ];
  const [first, , , , last] = cells;
  if (last)
    Object.assign(last, {
      verdict: 'void',
      reason: 'its positive control did not panic, so nothing follows',
    });
  if (first) first.warnings.push('a warning with <b>tags</b>');
  return {
    schemaVersion: 1,
    run: '20260101T000000Z-abc123',
    command: 'matrix',
    startedAt: '2026-01-01T00:00:00.123Z',
    resumedAt: [],
    finishedAt: '2026-01-01T00:10:00.000Z',
    durationSeconds: 600,
    interrupted: false,
    host: { hostname: 'host', kernel: '6.1', cpus: 2, memoryMiB: 4096, accel: 'tcg', accelReason: 'no KVM' },
    versions: { loopanic: '0', node: '20', qemu: 'QEMU' },
    matrix: { name: 'nightly', file: 'nightly.matrix.yaml' },
    request: { trials: 2, dump: 'kdump', seed: null },
    confidence: 0.99,
    retries: 2,
    skipped: [{ kernel: 'centos-7.6', why: 'not on this host' }],
    cells,
  };
}

function cell(
  module: string,
  scenario: string,
  outcomes: Outcome[],
  { expected, control = null }: { expected?: 'panics' | 'clean'; control?: RunCell['control'] },
): RunCell {
  const trials = outcomes.map((outcome, index) => trial(module, scenario, outcome, index + 1));
  const goal = { trials: 2, sequential: true, isControl: false, control: null };
  return {
    kernel: 'debian-6.1',
    module,
    scenario,
    ...judgeCell(trials, goal),
    control,
    ...(expected ? { expected: { verdict: expected, why: 'because | of this' } } : {}),
    kernelInfo: { key: '6.1', release: '6.1.0-1-amd64', version: '6.1', origin: 'debian', packages: [] },
    moduleInfo: { vermagic: 'x', srcversion: 'ABC', buildId: 'f00d' },
    image: { name: 'minimal', key: 'minimal-1' },
    isControl: module === 'unpatched' && scenario === 'xfs-loopback',
    scripts: 'abc',
    repeat: ['run', scenario, '--kernel', 'debian-6.1', '--module', module],
    scenarioDefinition: {},
    wantedTrials: 2,
    durationSeconds: outcomes.length * 10,
    trials,
  };
}

function trial(module: string, scenario: string, outcome: Outcome, number: number): RunTrial {
  return {
    schemaVersion: 1,
    kernel: 'debian-6.1',
    module,
    scenario,
    trial: number,
    seed: 42 + number,
    outcome,
    reason: `reason of ${outcome}`,
    corrupted: false,
    signature: null,
    interrupted: false,
    phase: 'workload',
    timings: { outcome: number * 10 },
    accel: 'tcg',
    guest: null,
    workload: null,
    evidence: outcome === 'reproduced' ? [{ file: 'serial.log', line: 3, text: 'usercopy' }] : [],
    warnings: [],
    folder: `cells/${scenario}/trial-00${number}`,
    dump: null,
    analysis: null,
  };
}
