import type { Bug, Receiver } from './bug.js';
import { allBugs, bugOf, targetOf } from './family.js';

/** What a crash report is compared with: a bug, and who was to read. */
export interface Sought {
  bug: Bug;
  receiver: Receiver;
}

/** What a scenario seeks. `receiver` is a Comm that it names instead of its target's. Throws UsageError for unknown names. */
export function soughtBy(scenario: { bug: string; target: string; receiver?: string | undefined }): Sought {
  const { receiver } = scenario;
  return {
    bug: bugOf(scenario.bug),
    receiver: receiver === undefined ? targetOf(scenario.target).receiver : receiverNamed(receiver),
  };
}

/** A reader by its Comm alone; one of loopanic's own where a target has it so, with all that belongs to it. */
export function receiverNamed(comm: string): Receiver {
  const targets = allBugs().flatMap((bug) => bug.targets.map((id) => targetOf(id).receiver));
  const known = targets.find((receiver) => receiver.comm.test(comm));
  return known ?? { comm: new RegExp(`^${comm.replace(/[^\w]/g, '\\$&')}$`), words: comm };
}

/** Every bug with every target that can show it: what a log from anywhere is compared with. */
export function allSought(): Sought[] {
  return allBugs().flatMap((bug) => {
    const receivers = [...bug.targets.map((id) => targetOf(id).receiver), ...(bug.readers ?? [])];
    return [...new Map(receivers.map((receiver) => [receiver.words, receiver])).values()].map((receiver) => ({
      bug,
      receiver,
    }));
  });
}

/** Of one bug, if it is named, and with another reader than its targets' own, if that is. Throws UsageError. */
export function soughtAmong({
  bug,
  receiver,
}: {
  bug?: string | undefined;
  receiver?: string | undefined;
}): Sought[] {
  if (bug !== undefined) bugOf(bug);
  const all = allSought().filter((sought) => bug === undefined || sought.bug.id === bug);
  if (receiver === undefined) return all;
  const reader = receiverNamed(receiver);
  return [...new Set(all.map((sought) => sought.bug))].map((one) => ({ bug: one, receiver: reader }));
}

/** One of a bug, whose usual target reads unless another reader is named. Throws UsageError. */
export function soughtIn({ bug, receiver }: { bug: string; receiver?: string | undefined }): Sought {
  return soughtBy({ bug, target: bugOf(bug).targets[0] ?? '', receiver });
}
