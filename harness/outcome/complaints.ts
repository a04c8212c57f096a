// Temporary stub: replaced by the helper's table.
export function complaintIn(text: string): object | null {
  return /WARNING: |I\/O error|detected conn error|Filesystem has been shut down|critical target error|writeback error|Out of memory|BUG: |INFO: task|soft lockup/.test(
    text,
  )
    ? {}
    : null;
}
