import ora from 'ora';
import { harmless } from './harmless.js';

/** What a command tells while it works; a step is one of several that may run at a time. Seconds are since the step began. */
export type ProgressEvent =
  | { kind: 'line'; text: string }
  | { kind: 'begin'; step: number; title: string }
  | { kind: 'update'; step: number; title: string; text: string; seconds: number }
  | { kind: 'end'; step: number; title: string; seconds: number; failed: boolean; text: string };

/** Shows events to somebody. */
export type Reporter = (event: ProgressEvent) => void;

/** How steps tell what they do. */
export interface Progress {
  /** One line that stays. */
  line(text: string): void;
  /** Runs `work` under a title; `update` says what it is waiting for, `told` what came of it, if that is more than that it is done. */
  step<T>(
    title: string,
    work: (update: (text: string) => void) => Promise<T>,
    told?: (result: T) => string,
  ): Promise<T>;
}

/** Progress as events for a reporter. */
export function progressTo(report: Reporter): Progress {
  let steps = 0;
  return {
    line: (text) => report({ kind: 'line', text: harmless(text) }),
    async step(name, work, told) {
      const title = harmless(name);
      const step = ++steps;
      const started = performance.now();
      const seconds = (): number => (performance.now() - started) / 1000;
      report({ kind: 'begin', step, title });
      let failed = true;
      let text = '';
      try {
        const result = await work((text) =>
          report({ kind: 'update', step, title, text: harmless(text), seconds: seconds() }),
        );
        failed = false;
        text = harmless(told?.(result) ?? '');
        return result;
      } finally {
        report({ kind: 'end', step, title, seconds: seconds(), failed, text });
      }
    },
  };
}

/** Progress for people, on stderr, since stdout belongs to results: a terminal sees a live line for each step that runs, a pipe sees plain lines. */
export function stderrProgress(): Progress {
  const { stderr } = process;
  return progressTo(stderr.isTTY === true ? liveReporter(stderr) : plainReporter(stderr));
}

/** Progress that says nothing. */
export const silentProgress: Progress = progressTo(() => {});

const PIPE_INTERVAL_SECONDS = 5;
const duration = (seconds: number): string => `${seconds.toFixed(1)} s`;

/** Lines as things happen; of a step's updates one every few seconds. */
export function plainReporter(stream: NodeJS.WritableStream): Reporter {
  const told = new Map<number, number>();
  const line = (text: string): void => void stream.write(`${text}\n`);
  return (event) => {
    switch (event.kind) {
      case 'line':
        line(event.text);
        break;
      case 'begin':
        told.set(event.step, 0);
        line(`${event.title} …`);
        break;
      case 'update':
        if (event.seconds - (told.get(event.step) ?? 0) < PIPE_INTERVAL_SECONDS) return;
        told.set(event.step, event.seconds);
        line(`${event.title}: ${event.text} (${duration(event.seconds)})`);
        break;
      case 'end':
        told.delete(event.step);
        if (!event.failed && (event.seconds > 1 || event.text !== ''))
          line(`${event.title}: ${event.text || 'done'} in ${duration(event.seconds)}`);
    }
  };
}

/** A live line for each step that runs, below the lines that stay. */
export function liveReporter(stream: NodeJS.WriteStream): Reporter {
  const running = new Map<number, { title: string; text: string; began: number }>();
  const spinner = ora({ stream, discardStdin: false });
  let clock: NodeJS.Timeout | undefined;
  const paint = (): void => {
    spinner.text = [...running.values()]
      .map(({ title, text, began }) => {
        const seconds = (performance.now() - began) / 1000;
        return `${title}${text && `: ${text}`} (${duration(seconds)})`;
      })
      .join('\n  ');
  };
  /** Something that stays, above the live lines. */
  const keep = (show: () => void): void => {
    spinner.stop();
    show();
    if (running.size === 0) {
      clearInterval(clock);
      clock = undefined;
      return;
    }
    paint();
    spinner.start();
    clock ??= setInterval(paint, 500);
  };
  return (event) => {
    switch (event.kind) {
      case 'line':
        keep(() => stream.write(`${event.text}\n`));
        break;
      case 'begin':
        running.set(event.step, { title: event.title, text: '', began: performance.now() });
        keep(() => {});
        break;
      case 'update': {
        const step = running.get(event.step);
        if (step) step.text = event.text;
        paint();
        break;
      }
      case 'end': {
        running.delete(event.step);
        const told = event.text && `: ${event.text}`;
        const text = `${event.title}${told} (${duration(event.seconds)})`;
        keep(() => spinner.stopAndPersist({ symbol: event.failed ? '✖' : '✔', text }));
      }
    }
  };
}
