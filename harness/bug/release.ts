/** True if a kernel release (`uname -r`) is version `major.minor` or later. */
export function versionAtLeast(release: string, major: number, minor: number): boolean {
  const [a = 0, b = 0] = release.split('.').map((part) => Number.parseInt(part, 10));
  return a > major || (a === major && b >= minor);
}
