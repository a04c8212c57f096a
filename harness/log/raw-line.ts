/** A line of a file, as it is there. */
export interface RawLine {
  text: string;
  /** Number of the line in the file, from 1. */
  number: number;
}

/** No line of a log is read further, in characters. */
export const LONGEST_LINE = 64 * 1024;

/**
 * Cuts text that comes in pieces into lines. A carriage return alone ends a line, too (a newline was lost, or there are none), but is not
 * counted: editors do not. What of a line is beyond `LONGEST_LINE` is left out.
 */
export class RawLineSplitter {
  #number = 1;
  #line = '';
  #returned = false;

  push(piece: string): RawLine[] {
    const lines: RawLine[] = [];
    let from = 0;
    for (let at = from; at < piece.length; at = from) {
      at = this.#endIn(piece, from);
      const text = piece.slice(from, at);
      if (text !== '') {
        if (this.#returned) this.#end(lines);
        this.#line += text.slice(0, LONGEST_LINE - this.#line.length);
      }
      if (at === piece.length) break;
      if (piece[at] === '\n') {
        this.#end(lines);
        this.#number++;
      } else this.#returned = true;
      from = at + 1;
    }
    return lines;
  }

  /** The last line, if it has no end. */
  end(): RawLine[] {
    const lines: RawLine[] = [];
    if (this.#line !== '') this.#end(lines);
    return lines;
  }

  #endIn(piece: string, from: number): number {
    for (let at = from; at < piece.length; at++) {
      const code = piece.charCodeAt(at);
      if (code === 10 || code === 13) return at;
    }
    return piece.length;
  }

  #end(lines: RawLine[]): void {
    lines.push({ text: this.#line, number: this.#number });
    this.#line = '';
    this.#returned = false;
  }
}

/** Lines of a text. */
export function rawLines(text: string): RawLine[] {
  const splitter = new RawLineSplitter();
  return [...splitter.push(text), ...splitter.end()];
}
