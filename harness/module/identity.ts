import * as z from 'zod';

/** What a module under test is, beside its name. */
export const moduleIdentitySchema = z.object({
  sha256: z.string().default('').describe('of the .ko'),
  source: z
    .array(z.string())
    .default([])
    .describe('what it was made of, in order: patches with their subjects, or the files of a folder'),
  sameCodeAs: z
    .string()
    .nullable()
    .default(null)
    .describe("stock, or a variant of loopanic's, whose code is the same"),
  comparedWith: z
    .array(z.string())
    .default([])
    .describe('modules whose code it was compared with; those that could not be built are left out'),
});
export type ModuleIdentity = z.infer<typeof moduleIdentitySchema>;

/** Everything that names the module under test in results. */
export const moduleInfoSchema = z.object({
  vermagic: z.string(),
  srcversion: z.string().nullable(),
  buildId: z.string().nullable(),
  ...moduleIdentitySchema.shape,
});
export type ModuleRecord = z.infer<typeof moduleInfoSchema>;

/** How a module's code stands to those that are known, in words; null of loopanic's own, of which their name says it. */
export function codeText({
  sameCodeAs,
  comparedWith,
}: Pick<ModuleIdentity, 'sameCodeAs' | 'comparedWith'>): string | null {
  if (sameCodeAs === 'stock') return "its code is the same as stock's: nothing that is compiled was changed";
  if (sameCodeAs !== null) return `its code is the same as ${sameCodeAs}'s`;
  return comparedWith.length === 0 ? null : `its code is another than that of ${comparedWith.join(', ')}`;
}
