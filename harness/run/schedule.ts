/** Work that may have to wait for other work. */
export interface Task {
  /** Index of the task that must be over first; null if there is none. */
  after: number | null;
  run: () => Promise<void>;
}

/**
 * Does all tasks, up to `slots` at a time: those that wait for nothing first, then the others, each as soon as what it waits for is over. After
 * a failure, which is added to `failures`, nothing new is begun; the first one is thrown when what was begun is over.
 */
export async function schedule(
  tasks: readonly Task[],
  slots: number,
  failures: unknown[] = [],
): Promise<void> {
  const followers = new Map<number, number[]>();
  for (const [index, { after }] of tasks.entries())
    if (after !== null) followers.set(after, [...(followers.get(after) ?? []), index]);
  const ready = tasks.flatMap(({ after }, index) => (after === null ? [index] : []));
  let running = 0;
  await new Promise<void>((resolve) => {
    const advance = (): void => {
      while (running < slots && failures.length === 0) {
        const index = ready.shift();
        const task = index === undefined ? undefined : tasks[index];
        if (index === undefined || !task) break;
        running++;
        const over = (): void => {
          running--;
          ready.push(...(followers.get(index) ?? []));
          advance();
        };
        task.run().then(over, (error: unknown) => {
          failures.push(error);
          over();
        });
      }
      if (running === 0) resolve();
    };
    advance();
  });
  if (failures.length > 0) throw failures[0];
}
