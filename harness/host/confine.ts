/**
 * Arguments for setpriv, under which a program runs that has to do with what a guest made: it dies with this process, gains no privileges, and
 * has no capability but root's way past file modes (its own files may be those of the user that root works for). To give capabilities up takes
 * one of them, which only root has; others have none.
 */
export function confinement(): string[] {
  const none = ['--bounding-set', '-all,+dac_override', '--inh-caps', '-all'];
  return ['--pdeathsig', 'KILL', '--no-new-privs', ...(process.geteuid?.() === 0 ? none : [])];
}
