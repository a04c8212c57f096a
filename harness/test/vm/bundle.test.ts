import { mkdir, readdir, readFile, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import { findProgram } from '../../host/tools.js';
import { runSchema } from '../../results/run-schema.js';
import { loopanic } from '../support/cli.js';
import { tempDir } from '../support/files.js';

test('a panic that was bundled comes again from an empty folder, with QEMU and a shell alone', async (t) => {
  const results = await tempDir(t);
  const ran = await loopanic(
    ['run', 'xfs-loopback', '--module', 'unpatched', '--dump', 'none', '--json', '--results', results],
    { timeoutSeconds: 200 },
  );
  t.is(ran.code, 0, ran.stderr);
  const { run } = runSchema.parse(JSON.parse(ran.stdout));
  const file = join(results, 'panic.tar.gz');
  const made = await loopanic(['bundle', run, 'unpatched', '1', '--output', file, '--results', results], {
    timeoutSeconds: 200,
  });
  t.is(made.code, 0, made.stderr);
  // There is no second: what is there is never replaced.
  t.is((await loopanic(['bundle', run, 'unpatched', '--output', file, '--results', results])).code, 2);
  t.regex(
    (await loopanic(['bundle', run, 'unpatched', '2', '--results', results])).stderr,
    /has trials 1 to 1, not 2/,
  );
  t.regex(
    (await loopanic(['bundle', run, 'nothing', '--results', results])).stderr,
    /is no cell of this run: debian-6\.1\+unpatched/,
  );

  const empty = await tempDir(t);
  await execa('tar', ['-C', empty, '-xzf', file]);
  const [name = ''] = await readdir(empty);
  const dir = join(empty, name);
  await execa('sha256sum', ['--quiet', '-c', 'SHA256SUMS'], { cwd: dir });
  const bin = join(empty, 'bin');
  await mkdir(bin);
  for (const program of [
    'qemu-system-x86_64',
    'sh',
    'rm',
    'mkdir',
    'wc',
    'sed',
    'grep',
    'sleep',
    'head',
    'cat',
    'dirname',
  ])
    await symlink((await findProgram(program)) ?? program, join(bin, program));
  const booted = await execa(join(dir, 'boot.sh'), [], {
    env: { PATH: bin },
    extendEnv: false,
    reject: false,
    all: true,
    timeout: 200_000,
  });
  t.is(booted.exitCode, 0, booted.all.slice(-2000));
  t.regex(booted.all, /usercopy: Kernel memory exposure attempt detected from SLUB object 'kmalloc-512'/);
  t.regex(booted.all, /loopanic bundle: it panicked; in the original it panicked/);
  t.regex(await readFile(join(dir, 'SOURCES.txt'), 'utf8'), /linux-image-\S+ \S+/);
});
