import { createWriteStream } from 'node:fs';
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';
import { gzipSync } from 'node:zlib';
import test from 'ava';
import { execa } from 'execa';
import { packageRoot } from '../../base/paths.js';
import { findProgram } from '../../host/tools.js';
import { classifyLog } from '../../log/classify.js';
import { goldenLog, loopanic } from '../support/cli.js';
import { tempDir } from '../support/files.js';

/** A kernel's messages, without what printk put before them, and the seconds that it did. */
async function messages(): Promise<{ text: string; at: number }[]> {
  const log = await goldenLog('el7-957.27.2-usercopy-bug.log');
  return log
    .replaceAll('\r', '')
    .split('\n')
    .flatMap((line) => {
      const [, at, text] = /^\[ *([\d.]+)\] (.*)$/.exec(line) ?? [];
      return text === undefined ? [] : [{ text, at: Number(at) }];
    });
}
const OOPS = [
  'BUG: kernel NULL pointer dereference, address: 0000000000000010',
  '#PF: supervisor read access in kernel mode',
  'Oops: 0000 [#1] PREEMPT SMP',
  'CPU: 3 PID: 99 Comm: worker Not tainted 6.1.0-56-amd64 #1 Debian 6.1.192-2',
  'RIP: 0010:some_function+0x10/0x20',
  'Call Trace:',
  ' <TASK>',
  ' other_function+0x1/0x2',
  ' </TASK>',
  '---[ end trace 0000000000000000 ]---',
].map((text, index) => ({ text, at: 100 + index }));

const two = (number: number): string => String(Math.floor(number) % 60).padStart(2, '0');
/** What tools put before a message. */
const tools: Record<string, (at: number, index: number) => string> = {
  'journalctl -o short': (at) => `Mar 27 10:11:${two(at)} host1 kernel: `,
  'journalctl -o short-precise': (at) => `Mar 27 10:11:${two(at)}.558604 host1 kernel: `,
  'journalctl -o short-monotonic': (at) => `[${at.toFixed(6).padStart(12)}] host1 kernel: `,
  'journalctl -o short-full': (at) => `Fri 2020-03-27 10:11:${two(at)} CST host1 kernel: `,
  'journalctl -o short-unix': (at) => `1585275072.${String(Math.floor(at)).padStart(6, '0')} host1 kernel: `,
  'journalctl, in French': (at) => `juil. 27 10:11:${two(at)} host1 kernel: `,
  'journalctl, in Japanese': (at) => ` 3月 27 10:11:${two(at)} host1 kernel: `,
  'dmesg -d': (at) => `[${at.toFixed(6)} <    0.000655>] `,
  'dmesg -e': () => '[  +0.000655] ',
  'dmesg --time-format iso': (at) => `2020-03-27T10:11:${two(at)},559261+08:00 `,
  'dmesg -x': (at) => `kern  :emerg : [${at.toFixed(6)}] `,
  'netconsole, extended': (at, index) => `4,${1235 + index},${Math.floor(at)}559261,-;`,
  'netconsole, extended with caller': (at, index) =>
    `4,${1235 + index},${Math.floor(at)}559261,-,caller=${index % 2 ? 'T28054' : 'C9'};`,
  logcat: (at) => `03-27 10:11:${two(at)}.559     0     0 E         : `,
  'RFC 5424': (at) => `<0>1 2020-03-27T10:11:${two(at)}.558604+08:00 host1 kernel - - - `,
  'a tag alone': () => 'kernel: ',
  'syslog without a host': (at) => `Mar 27 10:11:${two(at)} kernel: `,
  'OpenWrt logread': (at) => `Fri Mar 27 10:11:${two(at)} 2020 kern.emerg kernel: [${at.toFixed(6)}] `,
  'GitHub Actions': (at) => `2024-03-27T10:11:${two(at)}.1234567Z `,
  Jenkins: (at) => `[2024-03-27T10:11:${two(at)}.123Z] `,
  'ts of moreutils': (at) => `Mar 27 10:11:${two(at)} [${at.toFixed(6)}] `,
  'docker compose': () => 'console_1  | ',
  'quoted mail': (at) => `> [${at.toFixed(6)}] `,
  'quoted mail without stamps': () => '>> ',
  'a comment': () => '# ',
  indentation: () => '        ',
};
for (const [tool, prefix] of Object.entries(tools))
  test(`a log by ${tool} is read: the sought panic, and another crash`, async (t) => {
    const told = (lines: { text: string; at: number }[]): string =>
      lines.map(({ text, at }, index) => `${prefix(at, index)}${text}\n`).join('');
    t.like(classifyLog(told(await messages())), { outcome: 'reproduced', bug: 'iscsi-slab' });
    const other = classifyLog(told(OOPS));
    t.is(other.outcome, 'other-crash', other.reason);
    t.regex(other.reason, /NULL pointer dereference/);
  });

test('journalctl -o json: the kernel is read, and a program that quotes it is not', async (t) => {
  const json = (who: string, lines: { text: string }[]): string =>
    lines.map(({ text }) => `${JSON.stringify({ SYSLOG_IDENTIFIER: who, MESSAGE: text })}\n`).join('');
  t.is(classifyLog(json('kernel', await messages())).outcome, 'reproduced');
  t.is(classifyLog(json('crash-mailer', await messages())).outcome, 'no-crash');
});

test('what a program says to the log, or quotes, is not the kernel', async (t) => {
  for (const prefix of ['[   50.000000] crash-mailer[412]: | ', 'Mar 27 10:11:12 host1 crash-mailer[412]: '])
    t.is(
      classifyLog((await messages()).map(({ text }) => `${prefix}${text}\n`).join('')).outcome,
      'no-crash',
      prefix,
    );
});

test('wrapped lines are joined', async (t) => {
  for (const width of [72, 80, 100]) {
    const wrapped = (await messages()).flatMap(({ text, at }) => {
      const line = `[${at.toFixed(6)}] ${text}`;
      return line.match(new RegExp(`.{1,${width}}`, 'g')) ?? [];
    });
    t.is(classifyLog(`${wrapped.join('\n')}\n`).outcome, 'reproduced', String(width));
  }
});

test('what other architectures and scripts make of a report', async (t) => {
  const log = await goldenLog('debian-6.1.192-unpatched-serial.log');
  const changed = (change: (text: string) => string): string => classifyLog(change(log)).outcome;
  t.is(
    changed((text) =>
      text.replaceAll(/(usercopy\.c:\d+)!/g, '$1 !').replaceAll('Call Trace:', 'Call trace:'),
    ),
    'reproduced',
  );
  t.is(
    changed((text) => text.replaceAll(/ ([a-z_]\w*)\+0x[0-9a-f]+\/0x[0-9a-f]+/g, ' $1 (net/file.c:12)')),
    'reproduced',
  );
});

test('the sought panic decides, whatever crash stands before it in the file; half a report is a damaged one', async (t) => {
  const sought = (await messages()).map(({ text, at }) => `[${at.toFixed(6)}] ${text}\n`).join('');
  const oops = OOPS.map(({ text, at }) => `[  ${at}.000000] ${text}\n`).join('');
  t.is(classifyLog(oops + sought).outcome, 'reproduced');
  t.is(classifyLog(sought + oops).outcome, 'reproduced');
  // All of them are told, in the order of the file.
  const { crashes } = classifyLog(oops + sought + oops);
  t.deepEqual(
    crashes.map(({ outcome, bug }) => [outcome, bug]),
    [
      ['other-crash', null],
      ['reproduced', 'iscsi-slab'],
      ['other-crash', null],
    ],
  );
  const lines = (oops + sought + oops).split('\n');
  for (const { line, lastLine, title } of crashes) {
    t.true(lines[line - 1]?.includes(title), title);
    t.true(lastLine >= line);
  }
  const beheaded = sought.slice(sought.indexOf('RIP: 0010'));
  t.like(classifyLog(`[1.000000] ${beheaded}`), { outcome: 'other-crash', corrupted: true });
});

test('packed and encoded logs are read; what is no text is told, with what to do', async (t) => {
  const dir = await tempDir(t);
  const text = await goldenLog('el7-957.27.2-usercopy-bug.log');
  const little = Buffer.from(`\uFEFF${text}`, 'utf16le');
  const file = async (name: string, content: Buffer | string): Promise<string> => {
    await writeFile(join(dir, name), content);
    return join(dir, name);
  };
  const packed = async (program: string): Promise<string> => {
    const { stdout } = await execa(program, ['-c'], { input: text, encoding: 'buffer' });
    return file(`log.${program}`, Buffer.from(stdout));
  };
  // Those that this host can pack; what it cannot unpack is told.
  const programs = await Promise.all(
    ['xz', 'bzip2', 'zstd'].map(async (name) => ((await findProgram(name)) ? [name] : [])),
  );
  for (const path of [
    await file('log.gz', gzipSync(text)),
    ...(await Promise.all(programs.flat().map(packed))),
    await file('little', little),
    await file('big', Buffer.from(little).swap16()),
    await file('unmarked', Buffer.from(text, 'utf16le')),
    await file('bom', `\uFEFF${text}`),
  ]) {
    const { code, stdout, stderr } = await loopanic(['classify', path]);
    t.is(code, 0, stderr);
    t.regex(stdout, /^reproduced iscsi-slab/, path);
  }
  for (const [name, content, pattern] of [
    ['journal', 'LPKSHHRH\0\0\0\0', /journal of systemd, not a log: .*journalctl --file/],
    ['vmcore', 'KDUMP   \0\0\0\0', /dump, not a log: .*loopanic analyze/],
    ['elf', '\x7fELF\x02\x01', /ELF file.*loopanic analyze/],
    ['cut.gz', gzipSync(text).subarray(0, 200), /cannot be unpacked/],
  ] as const) {
    const { code, stderr } = await loopanic(['classify', await file(name, content)]);
    t.is(code, 2, name);
    t.regex(stderr, pattern);
  }
});

test('a document that is larger than a pipe arrives whole, however slowly it is read', async (t) => {
  const file = join(await tempDir(t), 'warnings.log');
  const line = (index: number): string =>
    `[  ${index}.000000] WARNING: CPU: 0 PID: 1 at net/core/skbuff.c:${index} skb_x+0x1/0x2\n`;
  await writeFile(file, Array.from({ length: 4000 }, (_, index) => line(index)).join(''));
  const main = join(packageRoot, 'dist/cli/main.js');
  const { stdout } = await execa('sh', [
    '-c',
    '"$0" "$1" classify "$2" --json | { sleep 1; cat; }',
    process.execPath,
    main,
    file,
  ]);
  t.true(stdout.length > 2 ** 18);
  t.is((JSON.parse(stdout) as { warnings: unknown[] }).warnings.length, 4000);
});

test('a log that is larger than memory is read', async (t) => {
  const file = join(await tempDir(t), 'large.log');
  const line = (index: number): string =>
    `[${index}.000000] WARNING: CPU: 0 PID: 1 at net/core/skbuff.c:${index} skb_x+0x1/0x2\n`;
  const out = createWriteStream(file);
  // 64 MB, read with a heap of 32.
  for (let portion = 0; portion < 40; portion++)
    out.write(Array.from({ length: 20_000 }, (_, index) => line(portion * 20_000 + index)).join(''));
  out.end(`[1.0] ---[ end trace 0 ]---\n${await goldenLog('el7-957.27.2-usercopy-bug.log')}`);
  await finished(out);
  const env = { NODE_OPTIONS: '--max-old-space-size=32' };
  const { code, stdout, stderr } = await loopanic(['classify', file, '--json'], { env });
  t.is(code, 0, stderr.slice(0, 500));
  const found = JSON.parse(stdout) as { outcome: string; warnings: unknown[]; leftOut: { warnings: number } };
  t.is(found.outcome, 'reproduced');
  t.is(found.warnings.length + found.leftOut.warnings, 800_000);
});

test('what is no file, or never ends, is refused at once', async (t) => {
  const dir = await tempDir(t);
  const fifo = join(dir, 'fifo');
  await execa('mkfifo', [fifo]);
  for (const [path, why] of [
    [fifo, /is a FIFO, not a file/],
    ['/dev/zero', /is a device, not a file/],
  ] as const) {
    const { code, stderr } = await loopanic(['classify', path], { timeoutSeconds: 20 });
    t.is(code, 2, path);
    t.regex(stderr, why);
  }
  const main = join(packageRoot, 'dist/cli/main.js');
  const endless = async (command: string) =>
    execa('sh', ['-c', `${command} | "$0" "$1" classify -`, process.execPath, main], {
      reject: false,
      env: { XDG_CACHE_HOME: dir },
    });
  const zeros = await endless('cat /dev/zero');
  t.is(zeros.exitCode, 2);
  t.regex(zeros.stderr, /standard input: is not text/);
  t.deepEqual(await readdir(join(dir, 'loopanic/tmp')), [], 'nothing of it is left');
});

test('several logs: a line each, one document, and exit codes by outcome', async (t) => {
  const dir = await tempDir(t);
  const sought = await goldenLog('el7-957.27.2-usercopy-bug.log');
  const oops = OOPS.map(({ text, at }) => `[  ${at}.000000] ${text}\n`).join('');
  for (const [name, text] of [
    ['a.log', sought],
    ['b.log', oops],
    ['c.txt', 'nothing\n'],
  ] as const)
    await writeFile(join(dir, name), text);
  const all = await loopanic(['classify', dir]);
  t.is(all.code, 0, all.stderr);
  t.is(all.stdout.split('\n').length, 3);
  t.regex(all.stdout, /a\.log: reproduced iscsi-slab: /);
  const json = JSON.parse((await loopanic(['classify', join(dir, '*.log'), '--json'])).stdout) as {
    files: { file: string; outcome: string }[];
  };
  t.deepEqual(
    json.files.map(({ outcome }) => outcome),
    ['reproduced', 'other-crash'],
  );
  const code = async (...args: string[]) => (await loopanic(['classify', '--exit-code', ...args])).code;
  t.is(await code(join(dir, 'a.log')), 1);
  t.is(await code(join(dir, 'b.log')), 3);
  t.is(await code(join(dir, 'c.txt')), 0);
  t.is(await code(dir), 1);
  t.is(await code(join(dir, 'c.txt'), join(dir, 'none.log')), 2);
  t.is(await code(join(dir, 'none*')), 2);
});
