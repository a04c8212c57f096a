import { distance } from 'fastest-levenshtein';

/** The names closest to what was typed, best first; names that are too far off are left out. */
export function nearest(typed: string, names: readonly string[], most = 3): string[] {
  return names
    .map((name) => ({
      name,
      away: name.startsWith(typed) ? 0 : distance(typed.toLowerCase(), name.toLowerCase()),
    }))
    .filter(({ name, away }) => away <= Math.max(2, Math.floor(name.length / 2)))
    .sort((a, b) => a.away - b.away)
    .slice(0, most)
    .map(({ name }) => name);
}

/** "; did you mean a or b?", or what there is if nothing is close. Ends an error message about an unknown name. */
export function suggestion(typed: string, names: readonly string[]): string {
  const close = nearest(typed, names);
  if (close.length > 0) return `; did you mean ${close.join(' or ')}?`;
  return names.length > 0 ? `; there is ${names.join(', ')}` : '';
}

/** True if a name is one or two keys away from one that exists. */
export function isMistyped(typed: string, names: readonly string[]): boolean {
  return names.some((name) => name !== typed && distance(typed.toLowerCase(), name.toLowerCase()) <= 2);
}
