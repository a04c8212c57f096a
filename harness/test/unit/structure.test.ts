import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import { packageRoot } from '../../base/paths.js';
import { publishedSchemas } from '../../results/schemas.js';

/** The way of the data. A folder may import from itself and from those before it. */
const order = [
  'base',
  'bug',
  'host',
  'scenario',
  'package',
  'kernel',
  'module',
  'image',
  'vm',
  'log',
  'guest',
  'outcome',
  'trial',
  'verdict',
  'forensics',
  'results',
  'report',
  'run',
  'queue',
  'cli',
];

const harness = join(packageRoot, 'harness');

async function sources(): Promise<{ path: string; text: string }[]> {
  const names = await readdir(harness, { recursive: true });
  const paths = names.filter((name) => name.endsWith('.ts') && !name.startsWith('test/'));
  return Promise.all(
    paths.map(async (path) => ({ path, text: await readFile(join(harness, path), 'utf8') })),
  );
}

test('imports point one way', async (t) => {
  for (const { path, text } of await sources()) {
    const from = path.split('/')[0] ?? '';
    t.true(order.includes(from), `${path} is in no known folder`);
    for (const [, target] of text.matchAll(/from '((?:\.\.\/)+)([\w-]+)\//g)) t.truthy(target);
    for (const [, up = '', to = ''] of text.matchAll(/from '((?:\.\.\/)+)([\w-]+)\//g)) {
      const depth = path.split('/').length - 1;
      if (up.length / 3 !== depth) continue;
      t.true(order.indexOf(to) <= order.indexOf(from), `${path} imports from ${to}`);
    }
  }
});

/** What gives its answer at once. */
const SYNCHRONOUS = ['join', 'classifier.verdict'];

test('what an `await using` holds is not given back before the work that a function returns is done', async (t) => {
  for (const { path, text } of await sources()) {
    const lines = text.split('\n');
    for (const [index, line] of lines.entries()) {
      const [, indent] = /^(\s*)await using /.exec(line) ?? [];
      if (indent === undefined) continue;
      for (const later of lines.slice(index + 1)) {
        if (later.trim() !== '' && !later.startsWith(indent)) break;
        // Of its own scope; a call that is returned goes on behind the end of it.
        const [, call] = new RegExp(`^${indent}(?:  )?return (?!await )([\\w.#]+)\\(`).exec(later) ?? [];
        t.true(call === undefined || SYNCHRONOUS.includes(call), `${path}: ${later.trim()}`);
      }
    }
  }
});

test('nothing but what belongs there stands at the top', async (t) => {
  const allowed = [
    ...[
      'package.json',
      'package-lock.json',
      'tsconfig.json',
      'README.md',
      'LICENSE',
      'CHANGELOG.md',
      'CONTRIBUTING.md',
    ],
    ...['harness', 'scenarios', 'vm-images', 'results', 'node_modules', 'dist'],
  ];
  const names = (await readdir(packageRoot)).filter((name) => !name.startsWith('.'));
  t.deepEqual(
    names.filter((name) => !allowed.includes(name)),
    [],
  );
});

test('the published JSON Schemas are those of the code (npm run schemas)', async (t) => {
  for (const [name, schema] of Object.entries(publishedSchemas())) {
    const published = await readFile(join(harness, 'schemas', name), 'utf8');
    t.deepEqual(JSON.parse(published), JSON.parse(JSON.stringify(schema)), name);
  }
});

test('every Perl script of a guest compiles', async (t) => {
  const scripts: string[] = [];
  for (const dir of ['vm-images', 'scenarios'])
    for (const name of await readdir(join(packageRoot, dir), { recursive: true }))
      if (name.endsWith('.pl')) scripts.push(join(packageRoot, dir, name));
  t.true(scripts.length >= 5);
  for (const script of scripts) {
    const { exitCode, stderr } = await execa('perl', ['-c', script], { reject: false });
    t.is(exitCode, 0, stderr);
  }
});
