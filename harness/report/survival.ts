import type { RunTrial } from '../results/run-schema.js';
import { isRefuted, isRetryable } from '../verdict/cell-verdict.js';

/** A point of a survival curve: from `seconds` on, `share` of the boots have not panicked. */
export interface SurvivalStep {
  /** Since QEMU's start. */
  seconds: number;
  share: number;
}

export interface SurvivalCurve {
  steps: SurvivalStep[];
  /** Seconds at which boots that had not panicked were no longer looked at. */
  censored: SurvivalStep[];
}

/**
 * Kaplan–Meier estimate of the time to a panic (Kaplan and Meier 1958): reproduced trials are events; survivors are censored when their
 * workload ended, those that ended in another way (hung, warned, another crash) when they did. Trials that failed around the guest are
 * left out. Ties: events come before censorings.
 */
export function survivalCurve(trials: readonly RunTrial[]): SurvivalCurve {
  const times = trials
    .filter((trial) => !isRetryable(trial))
    .map((trial) => ({
      seconds: trial.timings.outcome ?? 0,
      panicked: trial.outcome === 'reproduced' && !isRefuted(trial),
    }))
    .sort((a, b) => a.seconds - b.seconds || Number(b.panicked) - Number(a.panicked));
  const curve: SurvivalCurve = { steps: [{ seconds: 0, share: 1 }], censored: [] };
  let [share, atRisk] = [1, times.length];
  for (const { seconds, panicked } of times) {
    if (panicked) {
      share *= (atRisk - 1) / atRisk;
      curve.steps.push({ seconds, share });
    } else curve.censored.push({ seconds, share });
    atRisk--;
  }
  return curve;
}
