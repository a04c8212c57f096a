/** Control characters but for the line's end and the tab: on a terminal they move, delete and rename; and those that turn text round. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** Text that a guest, a log or a file may have had a part in, for a terminal: what would do something there is shown instead. */
export function harmless(text: string): string {
  return text.replace(
    CONTROL,
    (character) =>
      `\\${character > '\u00ff' ? 'u' : 'x'}${character.charCodeAt(0).toString(16).padStart(2, '0')}`,
  );
}
