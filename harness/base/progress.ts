import ora from 'ora';

/** How long steps tell what they do. Text goes to stderr only; stdout belongs to results. */
export interface Progress {
  /** One line that stays. */
  line(text: string): void;
  /** Runs `work` under a title; `update` says what it is waiting for. A TTY sees a live line, a pipe sees plain lines. */
  step<T>(title: string, work: (update: (text: string) => void) => Promise<T>): Promise<T>;
}

const PIPE_INTERVAL_MS = 5000;

/** Progress for people, on stderr; `plain`: as a pipe sees it. */
export function stderrProgress(plain = false): Progress {
  const live = !plain && process.stderr.isTTY === true;
  const line = (text: string): void => {
    process.stderr.write(`${text}\n`);
  };
  return {
    line,
    async step(title, work) {
      const started = performance.now();
      const seconds = (): string => `${((performance.now() - started) / 1000).toFixed(1)} s`;
      if (!live) {
        let printed = performance.now();
        line(`${title} …`);
        const result = await work((text) => {
          if (performance.now() - printed < PIPE_INTERVAL_MS) return;
          printed = performance.now();
          line(`${title}: ${text} (${seconds()})`);
        });
        if (performance.now() - started > 1000) line(`${title}: done in ${seconds()}`);
        return result;
      }
      const spinner = ora({ text: title, stream: process.stderr, discardStdin: false }).start();
      let detail = '';
      const paint = (): void => {
        spinner.text = `${title}${detail && `: ${detail}`} (${seconds()})`;
      };
      const clock = setInterval(paint, 500);
      try {
        const result = await work((text) => {
          detail = text;
          paint();
        });
        spinner.succeed(`${title} (${seconds()})`);
        return result;
      } catch (error) {
        spinner.fail(`${title} (${seconds()})`);
        throw error;
      } finally {
        clearInterval(clock);
      }
    },
  };
}

/** Progress that says nothing. */
export const silentProgress: Progress = {
  line() {},
  step: (_title, work) => work(() => {}),
};
