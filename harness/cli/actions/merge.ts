import { join } from 'node:path';
import { writeFileAtomic } from '../../base/files.js';
import { makeReport } from '../../report/report.js';
import { mergeRuns } from '../../results/merge.js';
import { exitCodeOf, printRun } from '../run-output.js';

/** `loopanic merge RUN...`: one run of several, judged, reported and ended as if it had been one. */
export async function merge(args: { runs: string[]; results: string; json: boolean }): Promise<number> {
  const result = await mergeRuns(args.results, args.runs);
  const text = await makeReport(result.document, 'html', result.folder, result.folder);
  await writeFileAtomic(join(result.folder, 'report.html'), text);
  printRun(args.json, result);
  return exitCodeOf(result.document);
}
