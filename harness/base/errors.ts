import type { ErrorCode } from './error-codes.js';

/** Exit codes of the CLI, as scripts rely on them. */
export const EXIT = {
  ok: 0,
  unexpected: 1,
  usage: 2,
  noVerdict: 3,
  interrupted: 130,
} as const;

/**
 * Every failure a user can meet: one line that says what is wrong, where, and what to do.
 * `code` is stable for scripts; `exitCode` is what the CLI ends with.
 */
export class LoopanicError extends Error {
  readonly code: ErrorCode;
  readonly exitCode: number;

  constructor(code: ErrorCode, message: string, exitCode: number, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = new.target.name;
    this.code = code;
    this.exitCode = exitCode;
  }
}

/** The user's input (arguments, files, host) cannot be worked with: exit 2, and nothing was started. */
export class UsageError extends LoopanicError {
  constructor(code: ErrorCode, message: string, cause?: unknown) {
    super(code, message, EXIT.usage, cause);
  }
}

/** Something around the experiment failed, so it says nothing about the kernel: exit 3. */
export class InfraError extends LoopanicError {
  constructor(code: ErrorCode, message: string, cause?: unknown) {
    super(code, message, EXIT.noVerdict, cause);
  }
}

/** The user asked to stop (SIGINT, SIGTERM): exit 130. */
export class InterruptedError extends LoopanicError {
  constructor(message = 'interrupted') {
    super('interrupted', message, EXIT.interrupted);
  }
}

/** First line of any thrown value, for messages that wrap it. */
export function firstLine(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.split('\n', 1)[0] ?? '';
}

/** True if `error` is a Node system error with this code, such as ENOENT. */
export function hasErrno(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}

/** Waits for `work`, but no longer than until the user stops the command: then throws InterruptedError. */
export async function interruptible<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  let onAbort: () => void = () => {};
  const stopped = new Promise<never>((_, reject) => {
    onAbort = () => reject(new InterruptedError());
    signal.addEventListener('abort', onAbort);
    if (signal.aborted) onAbort();
  });
  try {
    return await Promise.race([work, stopped]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
