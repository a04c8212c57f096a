import * as z from 'zod';

/** What the trials of a cell amount to. */
export const verdictSchema = z.enum(['panics', 'exposed', 'clean', 'inconclusive', 'void']);
export type Verdict = z.infer<typeof verdictSchema>;

/** True of a verdict that says what the cell is. */
export function isDecided(verdict: Verdict | null): verdict is 'panics' | 'exposed' | 'clean' {
  return verdict === 'panics' || verdict === 'exposed' || verdict === 'clean';
}
