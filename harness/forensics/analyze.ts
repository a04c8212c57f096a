import { basename, join } from 'node:path';
import { firstLine } from '../base/errors.js';
import { writeFileAtomic, writeJson } from '../base/files.js';
import type { Sought } from '../bug/sought.js';
import type { Analysis } from './analysis-schema.js';
import { checkFacts, conclude } from './checks.js';
import { type CrashAnswer, CrashSession } from './crash-session.js';
import { tellAnalysis } from './tell.js';
import { noFacts, walk } from './walk.js';

export interface AnalysisRequest {
  vmcore: string;
  vmlinux: string;
  /** Folder of module files with debug info; loaded into crash if given. */
  modules?: string;
  /** What the panic is compared with. */
  sought: Sought;
  /** Folder for analysis.json and analysis.md; nothing is written without one. */
  dir?: string;
}

/**
 * Walks through a dump as the article does and says whether its panic is the sought one. Never throws for a dump that cannot be read: the
 * analysis then is incomplete, says why, and keeps the facts it had.
 */
export async function analyzeDump(request: AnalysisRequest, signal: AbortSignal): Promise<Analysis> {
  const started = performance.now();
  const seconds = (): number => Math.round(performance.now() - started) / 1000;
  const facts = noFacts();
  let problem: string | null = null;
  let start = 0;
  let transcript: CrashAnswer[] = [];
  try {
    await using session = await CrashSession.open(request, signal);
    start = seconds();
    transcript = session.transcript;
    if (session.modules !== null) await session.run(`mod -S ${session.modules}`);
    await walk(session, facts, request.sought.bug);
  } catch (error) {
    problem = firstLine(error);
  }
  const checks = checkFacts(facts, request.sought);
  const analysis: Analysis = {
    schemaVersion: 1,
    vmcore: basename(request.vmcore),
    complete: problem === null,
    problem,
    facts,
    checks,
    conclusion: conclude(facts, checks, problem, request.sought),
    seconds: { start, total: seconds() },
  };
  if (request.dir) {
    await writeJson(join(request.dir, 'analysis.json'), analysis);
    await writeFileAtomic(
      join(request.dir, 'analysis.md'),
      tellAnalysis(analysis, transcript, request.sought.bug),
    );
  }
  return analysis;
}
