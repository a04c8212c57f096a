import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { runSchema } from '../../results/run-schema.js';
import { loopanic } from '../support/cli.js';
import { tempDir } from '../support/files.js';

test.serial(
  "a whole distribution on a disk: the same panic, captured by the distribution's own kdump service",
  async (t) => {
    const results = await tempDir(t);
    const built = await loopanic(['image', 'ls', '--json']);
    t.is(built.code, 0);
    const args = [
      'run',
      'xfs-loopback',
      '--module',
      'unpatched',
      '--image',
      'debian-12-disk',
      '--json',
      '--results',
      results,
    ];
    const { code, stdout, stderr } = await loopanic(args, { timeoutSeconds: 500 });
    t.is(code, 0, stderr);
    const document = runSchema.parse(JSON.parse(stdout));
    const [trial] = document.cells[0]?.trials ?? [];
    t.is(document.cells[0]?.image.name, 'debian-12-disk');
    t.like(trial, { outcome: 'reproduced', phase: 'workload' });
    t.is(trial?.guest?.transport.persistent_port, '3260');
    t.is(trial?.dump?.method, 'kdump');
    const serial = await readFile(join(results, document.run, trial?.folder ?? '', 'serial.log'), 'latin1');
    t.regex(serial, /systemd\[1\]|Welcome to|Debian GNU\/Linux/);
  },
);
