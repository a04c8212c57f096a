import type { LogLine } from '../log/log-line.js';

/** A message with its level: 0 (emergency) to 7 (debug); 3 is an error. */
export interface KernelRecord extends LogLine {
  level: number;
}

/**
 * The kernel's own log of a trial, as the guest read it from /dev/kmsg when its workload had ended: every record since the first marker,
 * whatever its level, each with the kernel's number. What a console may lose, or never shows at its level, is here; and it can be told
 * whether all of it is.
 */
export class KernelLog {
  /** Messages, with their line in guest.log. */
  readonly lines: KernelRecord[] = [];
  #first: number | null = null;
  #last: number | null = null;
  #fault: string | null = null;
  #end: { first: number; last: number } | null = null;

  /** Takes what stands behind the token: `kmsg NUMBER LEVEL TEXT`, `kmsg.lost`, `kmsg.end FIRST LAST`. */
  push(said: string, line: number): void {
    const record = /^kmsg (\d{1,15}) ([0-7]) (.*)$/.exec(said.trimEnd());
    const end = /^kmsg\.end (\d{1,15}) (\d{1,15})\s*$/.exec(said);
    if (this.#end) this.#fault ??= `line ${line}: it goes on behind its end`;
    else if (record) {
      const number = Number(record[1]);
      if (this.#last !== null && number !== this.#last + 1)
        this.#fault ??= `line ${line}: record ${number} follows record ${this.#last}`;
      this.#first ??= number;
      this.#last = number;
      this.lines.push({ number: line, text: record[3] ?? '', broken: false, level: Number(record[2]) });
    } else if (end) this.#end = { first: Number(end[1]), last: Number(end[2]) };
    else if (said.startsWith('kmsg.lost')) this.#fault ??= `line ${line}: the kernel had overwritten records`;
    else this.#fault ??= `line ${line}: a record cannot be read`;
  }

  /** Why it is not known to be whole, or null. `said`: how many records the guest announced on its console. */
  notWhole(said: { records: number; last: number } | null): string | null {
    if (this.#fault !== null) return this.#fault;
    if (this.#end === null) return this.lines.length > 0 ? 'it has no end' : 'it was not sent';
    const { first, last } = this.#end;
    if (first !== this.#first || last !== this.#last)
      return `records ${this.#first} to ${this.#last} arrived, not ${first} to ${last}`;
    if (said === null || said.records !== this.lines.length || said.last !== last)
      return `${this.lines.length} records arrived; the console announces ${said?.records ?? 'none'}`;
    return null;
  }
}
