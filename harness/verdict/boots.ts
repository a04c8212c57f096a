/** Confidence of `clean` where none is asked for. */
export const DEFAULT_CONFIDENCE = 0.99;

/** Boots of a positive control where none are asked for: with them, and survivors of the module under test, the fewest boots in all. */
export const CONTROL_BOOTS = 5;
