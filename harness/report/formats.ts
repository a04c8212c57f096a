/** What a run can be told as. */
export const REPORT_FORMATS = ['html', 'junit', 'tap', 'md', 'kcidb', 'json'] as const;
export type ReportFormat = (typeof REPORT_FORMATS)[number];
