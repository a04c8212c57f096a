import type { RunDocument } from '../results/run-schema.js';
import { htmlReport } from './html.js';
import { junitReport } from './junit.js';
import { markdownReport } from './markdown.js';
import { tapReport } from './tap.js';

/** What a run can be told as. */
export const REPORT_FORMATS = ['html', 'junit', 'tap', 'md', 'json'] as const;
export type ReportFormat = (typeof REPORT_FORMATS)[number];

/** A run in one format. `folder` is the run's; `base` the folder that the report will be in. */
export async function makeReport(
  run: RunDocument,
  format: ReportFormat,
  folder: string,
  base: string,
): Promise<string> {
  switch (format) {
    case 'html':
      return htmlReport(run, folder, base);
    case 'junit':
      return junitReport(run);
    case 'tap':
      return tapReport(run);
    case 'md':
      return markdownReport(run);
    case 'json':
      return `${JSON.stringify(run, null, 2)}\n`;
  }
}
