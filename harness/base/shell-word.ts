/** A word for sh, in quotes: nothing in it is expanded. */
export function shellQuote(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}

/** The same, in quotes only where it needs them. */
export function shellWord(word: string): string {
  return /^[\w./@%+=:,-]+$/.test(word) ? word : shellQuote(word);
}
