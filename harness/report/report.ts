import type { RunDocument } from '../results/run-schema.js';
import type { ReportFormat } from './formats.js';
import { htmlReport } from './html.js';
import { junitReport } from './junit.js';
import { kcidbReport } from './kcidb.js';
import { markdownReport } from './markdown.js';
import { tapReport } from './tap.js';

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
    case 'kcidb':
      return kcidbReport(run);
    case 'md':
      return markdownReport(run);
    case 'json':
      return `${JSON.stringify(run, null, 2)}\n`;
  }
}
