import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '../../base/paths.js';
import { loopanic } from './cli.js';

/** Folder of the logs whose head says what is to be found in them. */
export const goldenDir = join(packageRoot, 'harness/test/logs/field');

/** A log with its expectation: the head, up to the first empty line, and the log behind it, byte for byte. */
export interface GoldenLog {
  name: string;
  file: string;
  expected: string;
  log: Buffer;
}

export async function goldenLogs(): Promise<GoldenLog[]> {
  const names = (await readdir(goldenDir)).filter((name) => name.endsWith('.log')).sort();
  return Promise.all(
    names.map(async (name) => {
      const file = join(goldenDir, name);
      const content = await readFile(file);
      const end = content.indexOf('\n\n');
      if (end < 0) throw new Error(`${file}: its head has no end: put an empty line before the log`);
      return { name, file, expected: content.toString('latin1', 0, end), log: content.subarray(end + 2) };
    }),
  );
}

interface Found {
  outcome: string;
  bug: string | null;
  corrupted: boolean;
  kernel: string | null;
  reason: string;
  crashes: { line: number; lastLine: number; title: string }[];
  warnings: { line: number; text: string }[];
}

/** What `loopanic classify` finds in each log, as its head would say it. Line numbers are those of the log without its head. */
export async function headsFound(logs: readonly GoldenLog[]): Promise<string[]> {
  const dir = await mkdtemp(join(tmpdir(), 'loopanic-golden-'));
  try {
    const files = logs.map(({ name }) => join(dir, name));
    await Promise.all(logs.map(({ log }, index) => writeFile(files[index] as string, log)));
    const { stdout, stderr } = await loopanic(['classify', '--json', dir]);
    if (stderr !== '') throw new Error(stderr);
    const { files: found } = JSON.parse(stdout) as { files: ({ file: string } & Found)[] };
    return files.map((file) => head(found.find((entry) => entry.file === file) as Found));
  } finally {
    await rm(dir, { recursive: true });
  }
}

function head({ outcome, bug, corrupted, kernel, reason, crashes, warnings }: Found): string {
  return [
    `outcome: ${outcome}${bug === null ? '' : ` ${bug}`}${corrupted ? ' (corrupted)' : ''}`,
    `reason: ${reason}`,
    `kernel: ${kernel ?? 'not named'}`,
    ...crashes.map(({ line, lastLine, title }) => `crash: ${line}-${lastLine} ${title}`),
    ...warnings.map(({ line, text }) => `warning: ${line} ${text}`),
  ].join('\n');
}
