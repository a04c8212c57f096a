import { setMaxListeners } from 'node:events';
import { EXIT, InterruptedError, interruptible } from '../base/errors.js';
import type { Context } from './context.js';

const abort = new AbortController();
// As many guests as there are jobs listen to it.
setMaxListeners(0, abort.signal);
const context: Context = { signal: abort.signal };
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  process.on(name, () => {
    // A second signal does not wait for the clean-up; QEMU dies with this process in any case.
    if (abort.signal.aborted) process.exit(EXIT.interrupted);
    abort.abort(new InterruptedError());
  });

/** What the process ends with. */
export const ending: { exitCode: number } = { exitCode: EXIT.ok };

/** A command that runs trials: it ends them and saves what is known when the user stops it. It is loaded when it is called. */
export function doesOwnCleanup<A>(load: () => Promise<(args: A, context: Context) => Promise<number>>) {
  return async (args: A): Promise<void> => {
    const action = await load();
    ending.exitCode = await action(args, context);
  };
}

/** Any other command: it is simply left when the user stops it. */
export function does<A>(load: () => Promise<(args: A) => Promise<number>>) {
  return doesOwnCleanup<A>(async () => {
    const action = await load();
    return (args, { signal }) => interruptible(action(args), signal);
  });
}
