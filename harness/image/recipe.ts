import * as z from 'zod';

const packages = z.array(z.string()).min(1);

/** image.yaml: how a guest image is made. */
export const recipeSchema = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('initramfs'),
    suite: z.string().describe("Debian's"),
    packages,
    programs: z
      .array(z.string().startsWith('/'))
      .min(1)
      .describe('taken out of the packages, with their libraries'),
    capture: z.array(z.string().startsWith('/')).min(1).describe('programs of the crash kernel'),
    extra: z
      .strictObject({
        packages: z.array(z.string()).default([]),
        programs: z.array(z.string().startsWith('/')).default([]),
        files: z
          .array(z.string().regex(/^\/[\w.*/+-]+$/, 'must be an absolute path; * stands for any name'))
          .default([])
          .describe('files and folders, with the libraries that they load'),
      })
      .prefault({})
      .describe('beside what the image has that this one is like'),
  }),
  z.discriminatedUnion('bootstrap', [
    z.strictObject({
      kind: z.literal('disk'),
      bootstrap: z.literal('mmdebstrap'),
      suite: z.string().describe("Debian's"),
      sizeMiB: z.int().min(256).max(65536),
      packages,
    }),
    z.strictObject({
      kind: z.literal('disk'),
      bootstrap: z.literal('dnf'),
      release: z.string().describe('$releasever'),
      sizeMiB: z.int().min(256).max(65536),
      repositories: z
        .array(
          z.strictObject({
            name: z.string().regex(/^[\w-]+$/),
            url: z.url(),
            override: z.string().describe('environment variable with another URL'),
            key: z.string().describe('beside vm-images/kernels.yaml; packages must be signed with it'),
            fingerprint: z.string().regex(/^[0-9A-F]{40}$/, 'must be 40 capital hex digits'),
          }),
        )
        .min(1),
      packages,
    }),
  ]),
]);
export type Recipe = z.infer<typeof recipeSchema>;
export type InitramfsRecipe = Extract<Recipe, { kind: 'initramfs' }>;
export type DiskRecipe = Extract<Recipe, { kind: 'disk' }>;
