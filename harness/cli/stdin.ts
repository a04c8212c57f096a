/** What `-` stands for on the command line. */
export const STDIN = '/dev/stdin';
