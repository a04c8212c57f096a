import { createHash } from 'node:crypto';
import { join } from 'node:path';

/** Bytes that a file name may have, less what is appended to one that is too long. */
const LONGEST_NAME = 200;

/**
 * Folder of one trial, relative to its run's: `cells/<kernel>+<module>+<scenario>/trial-001`. Two cells never share one: whatever is no
 * plain letter, digit, dot, dash, underscore or @ is spelled out as % and its bytes in hexadecimal, the plus sign too.
 */
export function trialPath(
  { kernel, module, scenario }: { kernel: string; module: string; scenario: string },
  trial: number,
): string {
  const name = [kernel, module, scenario].map(spelled).join('+');
  return join('cells', shortened(name), `trial-${String(trial).padStart(3, '0')}`);
}

function spelled(text: string): string {
  return text.replace(/[^A-Za-z0-9_.@-]/gu, (sign) =>
    [...Buffer.from(sign)].map((byte) => `%${byte.toString(16).padStart(2, '0')}`).join(''),
  );
}

function shortened(name: string): string {
  if (name.length <= LONGEST_NAME) return name;
  return `${name.slice(0, LONGEST_NAME)}%${createHash('sha256').update(name).digest('hex').slice(0, 32)}`;
}
