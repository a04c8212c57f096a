import { contentKey } from '../base/files.js';
import type { RunCell, RunDocument } from '../results/run-schema.js';
import { percent } from '../verdict/cell-verdict.js';
import { cellName, moduleText, proofText, rateText } from './cell-state.js';

const ORIGIN = 'loopanic';

/** Statuses of KCIDB (kcidb-io, schema v5.3). */
type Status = 'PASS' | 'FAIL' | 'ERROR' | 'MISS';

/**
 * A run as a submission for KCIDB (the Linux Foundation's database of kernel tests; schema v5.3 of kcidb-io): a checkout for each kernel, a build for each
 * kernel with a module, a test for each cell. What is told is what a cell found, not whether that was expected: a positive control fails, as it
 * should, on its own build. Nothing is sent anywhere.
 */
export function kcidbReport(run: RunDocument): string {
  const checkouts = new Map<string, object>();
  const builds = new Map<string, object>();
  const tests = run.cells.map((cell) => {
    const checkout = checkoutOf(cell);
    checkouts.set(checkout.id, checkout);
    const build = buildOf(cell, checkout.id);
    builds.set(build.id, build);
    return testOf(cell, build.id, run);
  });
  return `${JSON.stringify(
    {
      version: { major: 5, minor: 3 },
      checkouts: [...checkouts.values()],
      builds: [...builds.values()],
      tests,
    },
    null,
    2,
  )}\n`;
}

/** An object's id: its origin, and what tells it from all others of its kind. */
const idOf = (...parts: string[]): string => `${ORIGIN}:${contentKey(...parts)}`;
/** No text of theirs holds a NUL. */
const plain = (text: string): string => text.replaceAll('\0', '\ufffd');

function checkoutOf({ kernel, kernelInfo }: RunCell) {
  const version = kernelInfo?.version ?? '';
  return {
    id: idOf('checkout', kernel, version, kernelInfo?.key ?? ''),
    origin: ORIGIN,
    tree_name: plain(kernel),
    comment: plain(`${kernel} ${kernelInfo?.release ?? ''} ${version}`.trim()),
    misc: { packages: kernelInfo?.packages ?? [] },
  };
}

function buildOf(cell: RunCell, checkout: string) {
  const { kernel, module, moduleInfo, kernelInfo } = cell;
  return {
    id: idOf('build', kernel, kernelInfo?.key ?? '', module, moduleInfo?.sha256 ?? ''),
    checkout_id: checkout,
    origin: ORIGIN,
    architecture: 'x86_64',
    comment: plain(`${kernel} with the module ${module}: ${moduleText(cell)}`),
    misc: { module: { name: module, ...(moduleInfo ?? {}) } },
  };
}

function testOf(cell: RunCell, build: string, run: RunDocument) {
  const trials = cell.trials.map(({ trial, outcome, reason, seed }) => ({ trial, outcome, reason, seed }));
  return {
    id: idOf('test', run.run, cellName(cell)),
    build_id: build,
    origin: ORIGIN,
    // A path is of words, with dots between them.
    path: `loopanic.${cell.scenario.replace(/[^A-Za-z0-9_-]/g, '_')}`,
    status: statusOf(cell),
    start_time: run.startedAt,
    duration: cell.durationSeconds,
    environment: {
      comment: plain(`${run.host.hostname}: ${run.versions.qemu}, ${run.host.accel}`),
      misc: { image: cell.image.name, accel: run.host.accel, loopanic: run.versions.loopanic },
    },
    comment: plain(`${cell.verdict ?? 'not judged'}: ${cell.reason}`),
    misc: {
      run: run.run,
      verdict: cell.verdict,
      proof: proofText(cell),
      isControl: cell.isControl,
      expected: cell.expected?.verdict ?? null,
      panics: rateText(cell),
      gate: cell.statistics?.gate ?? null,
      confidence: run.confidence === null ? null : percent(run.confidence),
      trials,
      repeat: cell.repeat,
    },
  };
}

/** A failure is a kernel that panicked or leaked. What failed around it is an error, and what was not tried was missed. */
function statusOf({ verdict, trials, unmade }: RunCell): Status {
  if (verdict === 'panics' || verdict === 'exposed') return 'FAIL';
  if (verdict === 'clean') return 'PASS';
  return unmade !== null || trials.length === 0 || verdict === 'void' ? 'MISS' : 'ERROR';
}
