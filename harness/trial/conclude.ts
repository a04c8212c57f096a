import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import * as z from 'zod';
import { firstLine, hasErrno, InfraError } from '../base/errors.js';
import type { SoughtCopy } from '../bug/bug.js';
import { bugOf } from '../bug/family.js';
import { soughtBy } from '../bug/sought.js';
import { gateReading } from '../guest/gate-reading.js';
import { FactReader } from '../guest/guest-facts.js';
import { GuestMarkers, LineSplitter } from '../guest/guest-markers.js';
import { classifyLines, type LogEvidence, type LogVerdict } from '../log/classify.js';
import { CrashReader } from '../log/crash-report.js';
import type { LogLine } from '../log/log-line.js';
import { moduleInfoSchema } from '../module/identity.js';
import { decideOutcome, expectedSchema, type TrialEnd } from '../outcome/decide.js';
import type { TrialOutcome } from '../outcome/outcome-schema.js';

/** Files of a trial. The peer is the guest that the target is in, where that is another one. */
export const TRIAL_FILES = {
  plan: 'plan.json',
  outcome: 'outcome.json',
  console: 'serial.log',
  guest: 'guest.log',
  qemu: 'qemu.log',
  peerConsole: 'target-serial.log',
  peerGuest: 'target-guest.log',
  peerQemu: 'target-qemu.log',
} as const;

/** More than this, in bytes, no trial prints to a port; what comes behind is not read. */
export const MOST_BYTES = 64 * 2 ** 20;
/** And no more lines. */
export const MOST_LINES = 1_000_000;

/** What of a trial's plan.json its logs are read by. */
export const readingPlanSchema = z.object({
  kernel: z.string(),
  module: z.string(),
  moduleInfo: moduleInfoSchema.optional().describe('the first plans do not have it'),
  trial: z.int(),
  cellKey: z.string(),
  seed: z.int(),
  token: z.string().regex(/^[0-9a-f]{8}$/),
  accel: z.enum(['kvm', 'tcg']),
  host: z.object({ name: z.string(), qemu: z.string() }).optional(),
  profile: z.object({ hardenedUsercopyBuilt: z.boolean() }),
  scenario: z.object({
    name: z.string(),
    bug: z.string(),
    target: z.string(),
    where: z.enum(['loopback', 'peer']),
    receiver: z.string().optional(),
  }),
  expected: expectedSchema,
});
export type ReadingPlan = z.infer<typeof readingPlanSchema>;

/**
 * The outcome of a trial from the logs in `dir` alone, so that it is the same whether its own process reads them or one that comes to a
 * run that was cut off. `timings` in seconds. Throws InfraError if a log is there and cannot be read.
 */
export async function concludeTrial(
  plan: ReadingPlan,
  dir: string,
  end: TrialEnd,
  timings: Record<string, number>,
): Promise<TrialOutcome> {
  const soughts = [soughtBy(plan.scenario)];
  const markers = new GuestMarkers(plan.token);
  const console = await readLines(dir, TRIAL_FILES.console, (line) => void markers.push(line));
  const facts = new FactReader(plan.token);
  await readLines(dir, TRIAL_FILES.guest, (line) => facts.push(line.text, line.number));
  const { kernelLog } = facts;
  const peerMarkers = new GuestMarkers(plan.token);
  const readPeer = (line: LogLine): void => void peerMarkers.push(line);
  const peerConsole =
    plan.scenario.where === 'peer' ? await readLines(dir, TRIAL_FILES.peerConsole, readPeer) : [];

  const own = classifyLines(console, soughts);
  const peer = classifyLines(peerConsole, soughts);
  const kernel = newsOf(classifyLines(kernelLog.lines, soughts), own);
  // The guest with the target is part of the trial: what it says counts as much. And what a console lost, the kernel's own log may have.
  const sources = [
    { log: own, file: TRIAL_FILES.console },
    { log: peer, file: TRIAL_FILES.peerConsole },
    { log: kernel, file: TRIAL_FILES.guest },
  ];
  const told = new GuestMarkers(plan.token);
  for (const line of kernelLog.lines) told.push(line);
  const crash = sources.find(({ log }) => log.outcome !== 'no-crash') ?? {
    log: own,
    file: TRIAL_FILES.console,
  };
  const { hardenedUsercopyBuilt } = plan.profile;
  const guest = facts.facts(hardenedUsercopyBuilt);
  const seen = {
    log: crash.log,
    markers,
    damage: damageOf(console, markers.firstLine),
    guest,
    after: facts.factsAfter(hardenedUsercopyBuilt),
    kernelLog,
    complaints: [
      ...since(own, markers),
      ...since(kernel, told),
      ...since(peer, peerMarkers),
      ...sources.flatMap(({ log }) => unlisted(log)),
    ],
  };
  const cite =
    (file: string) =>
    ({ line, text }: LogEvidence): TrialOutcome['evidence'][number] => ({
      file,
      line,
      text: text.slice(0, LONGEST_CITED),
    });
  return {
    schemaVersion: 1,
    kernel: plan.kernel,
    module: plan.module,
    ...(plan.moduleInfo ? { moduleInfo: plan.moduleInfo } : {}),
    scenario: plan.scenario.name,
    bug: plan.scenario.bug,
    trial: plan.trial,
    cellKey: plan.cellKey,
    seed: plan.seed,
    ...decideOutcome(seen, plan.expected, end),
    signature: crash.log.signature,
    // A panic counts, whoever stopped what came after it.
    interrupted: (end.why === 'interrupted' || end.why === 'cut-off') && crash.log.outcome === 'no-crash',
    ended: plainEnd(end),
    phase: markers.phase,
    timings,
    accel: plan.accel,
    guest,
    ...withinReach(
      gateReading(
        {
          probe: facts.told('gate.probe'),
          why: facts.told('gate.why'),
          rest: facts.told('gate.rest'),
          sectorSize: guest?.filesystem.sectorSize ?? null,
          copy: bugOf(plan.scenario.bug).copy,
          panicked: crash.log.outcome === 'reproduced' ? (crash.log.signature?.length ?? 0) : null,
        },
        markers.work,
        console,
      ),
      end,
      bugOf(plan.scenario.bug).copy,
    ),
    workload: markers.work && {
      ...markers.work,
      mergedTwoSectorWrites: markers.work.counts.merged ?? 0,
      headerReads: markers.work.counts.reads ?? 0,
    },
    evidence: crash.log.evidence.slice(0, MOST_CITED).map(cite(crash.file)),
    warnings: sources.flatMap(({ log, file }) => log.warnings.slice(0, MOST_CITED).map(cite(file))),
  };
}

/**
 * The outcome of a trial whose logs hold what cannot be recorded, for the reason `why`. A crash is one all the same: it is not tried again, and what
 * it was is not known.
 */
export async function concludeUnreadable(
  plan: ReadingPlan,
  dir: string,
  end: TrialEnd,
  timings: Record<string, number>,
  why: string,
): Promise<TrialOutcome> {
  const empty = await concludeTrial(plan, join(dir, 'none'), { why: 'cut-off' }, timings);
  const told = { ...empty, ended: plainEnd(end), interrupted: end.why === 'interrupted' };
  let crashed = end.why === 'crashed';
  for (const name of [TRIAL_FILES.console, TRIAL_FILES.peerConsole]) {
    const reader = new CrashReader();
    await readLines(dir, name, (line) => reader.push(line));
    crashed ||= reader.crash !== undefined;
  }
  return crashed
    ? {
        ...told,
        outcome: 'other-crash',
        corrupted: true,
        interrupted: false,
        reason: `it crashed, and its logs cannot be read: ${why}`,
      }
    : { ...told, outcome: 'infra-error', reason: `its logs cannot be read: ${why}` };
}

/** Why a trial was ended, as outcome.json has it. */
function plainEnd(end: TrialEnd): TrialOutcome['ended'] {
  const told: [string, string | number | null | undefined][] = Object.entries(end);
  return Object.fromEntries(told.flatMap(([key, value]) => (value === undefined ? [] : [[key, value]])));
}

/** Of a log, in an outcome: the log itself is beside it. */
const MOST_CITED = 50;
const LONGEST_CITED = 500;
/** XFS writes no smaller header than a sector. */
const SMALLEST_SEGMENT = 512;

/** A reading of more segments than the LUN's disk received bytes for is none: a guest may count what it likes. */
function withinReach(
  reading: ReturnType<typeof gateReading>,
  end: TrialEnd,
  copy: SoughtCopy,
): ReturnType<typeof gateReading> {
  const received = end.why === 'finished' ? (end.lunBytesWritten ?? null) : null;
  const { gate } = reading;
  // Pieces across pages are counted in memory, too: not all of them are written.
  if (gate === null || received === null || copy !== 'whole-objects') return reading;
  if (gate.slabSegments * SMALLEST_SEGMENT <= received) return reading;
  return {
    gate: null,
    gateWhy: `the guest tells of ${gate.slabSegments} segments, and the disk of the LUN received ${received} bytes`,
  };
}

/** What a second record of the same messages says beside the first. */
function newsOf(second: LogVerdict, first: LogVerdict): LogVerdict {
  const known = new Set(first.warnings.map(({ text }) => text));
  return { ...second, warnings: second.warnings.filter(({ text }) => !known.has(text)) };
}

/** Of complaints that are counted only it is not known when they came. */
function unlisted({ leftOut }: LogVerdict): LogEvidence[] {
  return leftOut.warnings > 0
    ? [{ line: 0, text: `${leftOut.warnings} complaints more than are listed` }]
    : [];
}

/** Complaints since the modules were loaded: those of its boot are not a trial's. */
function since({ warnings }: LogVerdict, { moduleLine }: GuestMarkers): LogEvidence[] {
  return moduleLine === 0 ? [] : warnings.filter(({ line }) => line > moduleLine);
}

function damageOf(console: readonly LogLine[], from: number): string | null {
  const broken = console.find((line) => line.broken && from > 0 && line.number > from);
  return broken ? `line ${broken.number}: another message stands inside one of the kernel's` : null;
}

/** The messages of a log; none if its QEMU was never started. One that cannot be read must not pass for an empty one. */
async function readLines(dir: string, name: string, onLine: (line: LogLine) => void): Promise<LogLine[]> {
  const lines: LogLine[] = [];
  const splitter = new LineSplitter((line) => {
    if (line.text !== '') lines.push(line);
    onLine(line);
  });
  try {
    const log = createReadStream(join(dir, name), { end: MOST_BYTES, highWaterMark: 2 ** 20 });
    for await (const chunk of log) {
      splitter.push(chunk as Buffer);
      if (splitter.count > MOST_LINES) break;
    }
  } catch (error) {
    if (!hasErrno(error, 'ENOENT'))
      throw new InfraError('log-lost', `${join(dir, name)} cannot be read: ${firstLine(error)}`, error);
  }
  splitter.flush();
  return lines;
}
