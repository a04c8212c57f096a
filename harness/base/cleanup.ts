const pending = new Set<Promise<unknown>>();

/** Work that must not be cut off when the user stops the command, such as the removal of a container. */
export function finishBeforeExit<T>(work: Promise<T>): Promise<T> {
  const entry = work
    .catch(() => {})
    .then(() => {
      pending.delete(entry);
    });
  pending.add(entry);
  return work;
}

/** Settles when all such work is done. */
export async function cleanedUp(): Promise<void> {
  await Promise.all(pending);
}
