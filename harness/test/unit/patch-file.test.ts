import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import test, { type ExecutionContext } from 'ava';
import { bugOf } from '../../bug/family.js';
import { readPatches } from '../../module/patch-file.js';
import { checkPatch } from '../../module/sources.js';
import { tempDir } from '../support/files.js';

const GATE = bugOf('iscsi-slab').module;
const HUNK =
  '@@ -37,0 +38,2 @@\n+/* größer = mehr, and long enough that a mail program wraps it at seventy-six columns */\n+int x;\n';
const DIFF = `--- a/drivers/scsi/libiscsi_tcp.c\n+++ b/drivers/scsi/libiscsi_tcp.c\n${HUNK}`;
const mail = (encoding: string, body: string, subject = '[PATCH] answer'): string =>
  `From: A Developer <dev@example.org>\nSubject: ${subject}\nMIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: ${encoding}\n\n${body}`;
const message = (diff: string): string => `Words.\n\n--- Changes since v2: words\n---\n${diff}-- \n2.40.0\n`;
const utf8 = (text: string): string => Buffer.from(text).toString('latin1');
const quoted = (text: string): string =>
  utf8(text)
    .replace(/[=\x80-\xff]/g, (byte) => `=${byte.charCodeAt(0).toString(16).toUpperCase()}`)
    .split('\n')
    .flatMap((line) => (line.match(/.{1,60}(?![0-9A-F]{0,2}$)|.+/g) ?? ['']).join('=\n').split('\n'))
    .join('\n');
const base64 = (text: string): string =>
  (
    Buffer.from(text)
      .toString('base64')
      .match(/.{1,76}/g) ?? []
  ).join('\n');

async function file(t: ExecutionContext, name: string, content: string | Buffer): Promise<string> {
  const path = join(await tempDir(t), name);
  await writeFile(path, content);
  return path;
}

/** What people have, of the same change. */
const forms: Record<string, string | Buffer> = {
  'plain.patch': DIFF,
  'plain.txt': DIFF,
  'plain.PATCH': DIFF,
  'crlf.patch': DIFF.replaceAll('\n', '\r\n'),
  'bom.patch': `\uFEFF${DIFF}`,
  'packed.patch.gz': gzipSync(DIFF),
  'utf16.patch': Buffer.from(`\uFEFF${DIFF}`, 'utf16le'),
  'no-prefix.patch': DIFF.replaceAll(/ [ab]\//g, ' '),
  'deep.patch': DIFF.replace('--- a/', '--- linux.old/').replace('+++ b/', '+++ linux.new/'),
  'deeper.patch': DIFF.replaceAll(/ [ab]\//g, ' x/y/linux/'),
  'in-folder.patch': DIFF.replaceAll('drivers/scsi/', ''),
  'orig.patch': DIFF.replace(
    '--- a/drivers/scsi/libiscsi_tcp.c',
    '--- drivers/scsi/libiscsi_tcp.c.orig',
  ).replace('b/drivers', 'drivers'),
  'svn.patch': `Index: drivers/scsi/libiscsi_tcp.c\n${'='.repeat(67)}\n${DIFF.replace('--- a/drivers/scsi/libiscsi_tcp.c', '--- drivers/scsi/libiscsi_tcp.c\t(revision 1)').replace('+++ b/drivers/scsi/libiscsi_tcp.c', '+++ drivers/scsi/libiscsi_tcp.c\t(working copy)')}`,
  'git.patch': `diff --git a/drivers/scsi/libiscsi_tcp.c b/drivers/scsi/libiscsi_tcp.c\nindex 1..2 100644\n${DIFF}`,
  'mail.eml': mail('8bit', message(DIFF)),
  'qp.eml': mail('quoted-printable', quoted(message(DIFF))),
  'base64.eml': mail('base64', base64(message(DIFF))),
  'quoting.eml': mail(
    '8bit',
    `An older try was\n\n--- a/net/core/skbuff.c\n+++ b/net/core/skbuff.c\n\nand is no part of it.\n---\n${DIFF}`,
  ),
  'attached.eml': `From: a@example.org\nSubject: [PATCH] answer\nContent-Type: multipart/mixed; boundary="XX"\n\n--XX\nContent-Type: text/plain\n\nsee the file\n--XX\nContent-Type: text/x-patch\nContent-Transfer-Encoding: base64\n\n${base64(DIFF)}\n--XX--\n`,
};
for (const [name, content] of Object.entries(forms))
  test(`a patch as ${name} is the plain one`, async (t) => {
    const path = await file(t, name, content);
    await t.notThrowsAsync(checkPatch(path, GATE));
    const [patch, ...more] = await readPatches(path);
    t.is(more.length, 0);
    t.is(patch?.changes.length, 1);
    t.is(Buffer.from(patch?.changes[0]?.hunks ?? '', 'latin1').toString(), HUNK);
    if (name.endsWith('.eml')) t.is(patch?.subject, '[PATCH] answer');
  });

test('a mailbox and a quilt series are patches in their order', async (t) => {
  const from = 'From 0123456789abcdef Mon Sep 17 00:00:00 2001\n';
  const box = await file(
    t,
    'two.mbox',
    [1, 2].map((number) => `${from}${mail('8bit', message(DIFF), `[PATCH ${number}/2] part`)}\n`).join(''),
  );
  t.deepEqual(
    (await readPatches(box)).map(({ name, subject }) => [name, subject]),
    [
      ['two.mbox#1', '[PATCH 1/2] part'],
      ['two.mbox#2', '[PATCH 2/2] part'],
    ],
  );
  const dir = await tempDir(t);
  await mkdir(join(dir, 'patches'));
  await writeFile(join(dir, 'patches/series'), '# order\nz.patch\n\na.patch -p1 # last\n');
  for (const name of ['a.patch', 'z.patch']) await writeFile(join(dir, 'patches', name), DIFF);
  for (const path of [dir, join(dir, 'patches'), join(dir, 'patches/series')])
    t.deepEqual(
      (await readPatches(path)).map(({ name }) => name),
      ['z.patch', 'a.patch'],
    );
  await writeFile(join(dir, 'patches/series'), 'a.patch\nnone.patch\n');
  await t.throwsAsync(readPatches(dir), { message: /series:2: none\.patch: there is no such file/ });
});

for (const [what, content, pattern] of [
  ['an empty file', '', /is empty/],
  ['words', 'hello\n', /is not a patch: no --- and \+\+\+ lines/],
  ['headers without hunks', DIFF.replace(HUNK, ''), /headers have no hunks/],
  ['a mode change', 'diff --git a/x b/x\nold mode 100644\nnew mode 100755\n', /changes modes or names only/],
  ['a combined diff', 'diff --cc x\n@@@ -1,2 -1,2 +1,3 @@@\n', /combined diff of a merge/],
  ['a cut hunk', DIFF.replace('+int x;\n', ''), /the hunk @@ -37,0 \+38,2 @@ is cut: .* 1 new lines/],
  [
    'one that deletes the file',
    `--- a/drivers/scsi/libiscsi_tcp.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n`,
    /libiscsi_tcp\.c is deleted by it/,
  ],
  [
    'other files, all of them named',
    `${DIFF}--- a/net/core/skbuff.c\n+++ b/net/core/skbuff.c\n@@ -1 +1 @@\n-x\n+y\n--- a/include/linux/net.h\n+++ b/include/linux/net.h\n@@ -1 +1 @@\n-x\n+y\n`,
    /changes net\/core\/skbuff\.c, include\/linux\/net\.h, which is not part of libiscsi_tcp.*validate --build-kernel/,
  ],
  [
    'a file of another bug of the family',
    DIFF.replaceAll('drivers/scsi/libiscsi_tcp.c', 'drivers/nvme/host/tcp.c'),
    /not part of libiscsi_tcp but of nvme_tcp: give a scenario of nvme-tcp-/,
  ],
] as const)
  test(`${what}: one line that says what is wrong`, async (t) => {
    const error = await t.throwsAsync(checkPatch(await file(t, 'x.patch', content), GATE));
    t.regex(error?.message ?? '', pattern);
    t.is(error?.message.split('\n').length, 1);
  });
