import test from 'ava';
import { whyReserved } from '../../scenario/kernel-words.js';
import { loopanic } from '../support/cli.js';
import { tempFile } from '../support/files.js';

test('words that the scenario or the harness sets are refused, in every spelling that the kernel takes', (t) => {
  for (const word of [
    ...[
      'hardened_usercopy=off',
      'hardened-usercopy=off',
      'Hardened_Usercopy=0',
      'slub_debug=P',
      'slub-debug',
      'slab_debug=Z',
    ],
    ...[
      'slub-max-order=0',
      'crashkernel=1M',
      'mem=64M',
      'maxcpus=1',
      'quiet',
      'loglevel=3',
      'log-buf-len=1k',
      'console=null',
    ],
    ...[
      'init=/bin/sh',
      'rdinit=/x',
      '--',
      'panic=-1',
      'oops=panic',
      'printk.time=0',
      'printk.devkmsg=off',
      'sysctl.kernel.printk=1',
    ],
    ...['nosmp', 'ignore_loglevel', 'panic-on-warn=1'],
  ])
    t.truthy(whyReserved(word), word);
  for (const word of [
    'nokaslr',
    'mitigations=off',
    'transparent_hugepage=never',
    'slab_nomerge',
    'nopti',
    'memtest=1',
  ])
    t.is(whyReserved(word), null, word);
});

test('a scenario with such a word: file, line and key, and what to do', async (t) => {
  const scenario = (args: string) =>
    tempFile(
      t,
      'x.yaml',
      `summary: x\nkernel: {extraArgs: [${args}]}\nworkload: {name: ag-sweep, cycles: 1}\n`,
    );
  for (const [args, pattern] of [
    [
      'hardened-usercopy=off',
      /x\.yaml:2: kernel\.extraArgs\.0: hardened-usercopy=off: is set by kernel\.hardenedUsercopy/,
    ],
    ['\'"hardened_usercopy=off"\'', /without quotes/],
    ['loglevel=0', /is set by loopanic/],
  ] as const) {
    const { code, stderr } = await loopanic(['scenario', 'show', await scenario(args)]);
    t.is(code, 2, stderr);
    t.regex(stderr, pattern);
  }
  t.is((await loopanic(['scenario', 'show', await scenario('nokaslr')])).code, 0);
});
