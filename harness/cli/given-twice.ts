import { UsageError } from '../base/errors.js';

/**
 * Refuses an option that is given more than once, with its values: yargs makes a list of some and takes the last of others, and which of
 * them was meant is not for us to choose. `words`: the command line. `args`: what yargs made of it. `lists`: options that may be
 * repeated. Throws UsageError.
 */
export function refuseRepeated(
  words: readonly string[],
  args: Readonly<Record<string, unknown>>,
  lists: readonly string[],
): void {
  const given = new Map<string, string[]>();
  for (const [index, word] of words.entries()) {
    if (word === '--') break;
    const [, spelled, equals, value] = /^--([a-zA-Z][\w-]*)(?:(=)(.*))?$/s.exec(word) ?? [];
    if (spelled === undefined) continue;
    // --keepDumps is --keep-dumps, and --no-verify is about --verify.
    const kebab = spelled.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    const name = Object.hasOwn(args, kebab) ? kebab : kebab.replace(/^no-/, '');
    if (lists.includes(name)) continue;
    const isSwitch = [args[name]].flat().every((one) => typeof one === 'boolean');
    const said = isSwitch ? word : equals ? (value ?? '') : (words[index + 1] ?? '');
    given.set(name, [...(given.get(name) ?? []), said]);
  }
  for (const [name, values] of given)
    if (values.length > 1)
      throw new UsageError(
        'bad-usage',
        `--${name}: is given ${values.length} times (${values.join(', ')}): give it once`,
      );
}
