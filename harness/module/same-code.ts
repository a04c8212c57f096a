import { firstLine, InterruptedError, LoopanicError } from '../base/errors.js';
import type { Progress } from '../base/progress.js';
import { codeKey } from '../kernel/module-code.js';
import type { ModuleIdentity } from './identity.js';

/** A module to compare with. `file` makes it if need be; null: there is none for this kernel. */
export interface KnownModule {
  name: string;
  file: () => Promise<string | null>;
}

/**
 * Which of the known modules has the same code as `file`. One that cannot be made here (no compiler, no source, a patch that does not
 * fit) is not compared, and is no reason to refuse a module that is built already.
 */
export async function compareCode(
  file: string,
  known: readonly KnownModule[],
  progress: Progress,
): Promise<Pick<ModuleIdentity, 'sameCodeAs' | 'comparedWith'>> {
  const key = await codeKey(file);
  const comparedWith: string[] = [];
  for (const { name, file: make } of known) {
    let other: string | null;
    try {
      other = await make();
    } catch (error) {
      if (!(error instanceof LoopanicError) || error instanceof InterruptedError) throw error;
      progress.line(`its code is not compared with ${name}'s: ${firstLine(error)}`);
      continue;
    }
    if (other === null) continue;
    if (!comparedWith.includes(name)) comparedWith.push(name);
    if (key === (await codeKey(other))) return { sameCodeAs: name, comparedWith };
  }
  return { sameCodeAs: null, comparedWith };
}
