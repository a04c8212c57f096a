import { RULES, type RunCell, type RunDocument, type RunTrial } from '../../results/run-schema.js';
import { trialPath } from '../../results/trial-path.js';
import { judgeInRun } from '../../verdict/judge-run.js';

type Outcome = RunTrial['outcome'];

/** A run of one cell of each kind, with text in it that reports have to take care of. */
export function sampleRun(): RunDocument {
  const control = { kernel: 'debian-6.1', module: 'unpatched', scenario: 'xfs-loopback' };
  const cells = [
    cell('unpatched', 'xfs-loopback', Array(5).fill('reproduced'), {
      expected: 'panics',
    }),
    cell('compound-head', 'xfs-loopback', ['survived', 'infra-error', 'survived', 'survived'], {
      expected: 'clean',
      control,
    }),
    cell('pageslab', 'xfs-loopback', ['reproduced'], { expected: 'clean', control }),
    cell('a|b <script>alert(1)</script> # & "x"\u0007', 'nomerges', ['hung'], { control }),
    cell('unpatched', 'sectors-4k', [], { control: { ...control, scenario: 'order-0' } }),
    cell('unpatched', 'order-0', ['survived', 'survived', 'survived'], {}),
  ];
  for (const cell of cells)
    Object.assign(cell, judgeInRun({ cells, confidence: 0.99, request: { byReading: false } }, cell));
  cells[0]?.warnings.push('a warning with <b>tags</b>');
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
    versions: { loopanic: '0', code: 'c0de', node: '20', qemu: 'QEMU' },
    rules: RULES,
    matrix: { name: 'nightly', file: 'nightly.matrix.yaml', shard: null },
    mergedFrom: [],
    request: { trials: 2, dump: 'kdump', seed: null, byReading: false, noExpectationOk: false },
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
  return {
    kernel: 'debian-6.1',
    module,
    scenario,
    verdict: null,
    reason: 'not run',
    warnings: [],
    statistics: null,
    provenBy: null,
    key: `key of ${module} ${scenario}`,
    unmade: null,
    control,
    ...(expected ? { expected: { verdict: expected, why: 'because | of this' } } : {}),
    kernelInfo: {
      key: '6.1',
      release: '6.1.0-1-amd64',
      version: '6.1',
      origin: 'debian',
      packages: [],
      builtOf: null,
      freelistRandom: true,
    },
    moduleInfo: {
      ...{ vermagic: 'x', srcversion: 'ABC', buildId: 'f00d' },
      ...{ sha256: 'cafe', source: ['one.patch: [PATCH] a|b <i>', 'two.patch'], sameCodeAs: null },
      comparedWith: ['stock', 'unpatched'],
    },
    image: { name: 'minimal', key: 'minimal-1' },
    isControl: module === 'unpatched' && ['xfs-loopback', 'order-0'].includes(scenario),
    scripts: 'abc',
    repeat: ['run', scenario, '--kernel', 'debian-6.1', '--module', module],
    scenarioDefinition: {},
    wantedTrials: 3,
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
    bug: 'iscsi-slab',
    trial: number,
    cellKey: `key of ${module} ${scenario}`,
    host: null,
    seed: 42 + number,
    outcome,
    reason: `reason of ${outcome}`,
    corrupted: false,
    certain: false,
    signature: null,
    interrupted: false,
    ended: {},
    phase: 'workload',
    timings: { outcome: number * 10 },
    accel: 'tcg',
    guest: null,
    gate: null,
    gateWhy: null,
    workload: null,
    evidence: outcome === 'reproduced' ? [{ file: 'serial.log', line: 3, text: 'usercopy' }] : [],
    warnings: [],
    folder: trialPath({ kernel: 'debian-6.1', module, scenario }, number),
    dump: null,
    analysis: null,
  };
}
