import * as z from 'zod';

/** What the trials of a cell amount to. */
export const verdictSchema = z.enum(['panics', 'clean', 'inconclusive', 'void']);
export type Verdict = z.infer<typeof verdictSchema>;
