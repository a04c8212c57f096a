import { watch } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import fc from 'fast-check';
import { LoopanicError } from '../../base/errors.js';
import { cacheDir, packageRoot } from '../../base/paths.js';

// Every file that a stranger may hand over, changed at random: whatever comes of it must be an answer or one clear line, in time and in
// memory, and nothing outside the folder that it was given in. FUZZ_RUNS: how often each is changed (default 40).
const RUNS = Number(process.env.FUZZ_RUNS ?? 40);
const MOST_SECONDS = 10;
const MOST_MIB = 1024;

const home = await mkdtemp(join(tmpdir(), 'loopanic-fuzz-'));
const modules = cacheDir('modules');
process.env.XDG_CACHE_HOME = join(home, 'cache');
process.env.XDG_CONFIG_HOME = join(home, 'config');
const allowed = ['cache', 'config', 'in', 'out'];
for (const name of allowed) await mkdir(join(home, name));

/** What was made or changed where nothing has to be. */
const elsewhere: string[] = [];
const watchers = ['/', '/etc', '/root', '/boot', '/usr', '/lib/modules', home, packageRoot].flatMap((dir) => {
  try {
    return [
      watch(dir, (_, name) => {
        if (dir !== home || !allowed.includes(String(name).split('/')[0] ?? ''))
          elsewhere.push(join(dir, String(name)));
      }),
    ];
  } catch {
    return [];
  }
});
test.after.always(async () => {
  for (const watcher of watchers) watcher.close();
  await rm(home, { recursive: true, force: true });
});

/** Cuts, repeats, swaps and replaces parts of what is valid. */
const change = fc.record({
  seed: fc.nat(),
  edits: fc.array(
    fc.record({
      // Anywhere: by itself fast-check prefers the ends.
      at: fc.noBias(fc.integer({ min: 0, max: 1_000_000 })),
      kind: fc.constantFrom('byte', 'cut', 'repeat', 'insert', 'number', 'line'),
      length: fc.nat(400),
      text: fc.constantFrom(
        ...['\0', '\u001b]0;x\u0007', '../../../../etc/passwd', '-rf', "';id;'", '$(id)', '`id`', '%n%s'],
        ...[
          '99999999999999999999',
          '-1',
          '\n',
          '\r',
          '\u00ff\u00fe',
          '&x;',
          '<b>',
          ',file=/etc/passwd',
          'NaN',
          '{',
        ],
      ),
    }),
    { minLength: 1, maxLength: 3 },
  ),
});
type Change = typeof change extends fc.Arbitrary<infer T> ? T : never;

function changed(content: Buffer, { edits }: Change): Buffer {
  let now = content;
  for (const { at, kind, length, text } of edits) {
    const from = Math.floor((at / 1_000_000) * now.length);
    const to = Math.min(now.length, from + length);
    const part = now.subarray(from, to);
    const before = now.subarray(0, from);
    if (kind === 'byte') {
      now = Buffer.from(now);
      if (from < now.length) now[from] = length & 255;
    } else if (kind === 'cut') now = Buffer.concat([before, now.subarray(to)]);
    else if (kind === 'repeat') now = Buffer.concat([before, ...Array(20).fill(part), now.subarray(from)]);
    else if (kind === 'insert')
      now = Buffer.concat([before, Buffer.from(text, 'latin1'), now.subarray(from)]);
    else if (kind === 'line')
      now = Buffer.concat([before, Buffer.from(`\n${text}\n`, 'latin1'), now.subarray(to)]);
    else
      now = Buffer.from(
        now
          .toString('latin1')
          .replace(/\d+/g, (digits, offset: number) => (offset >= from && offset < to ? text : digits)),
        'latin1',
      );
  }
  return now;
}

interface Kind {
  seeds: () => Promise<Buffer[]>;
  read: (content: Buffer) => Promise<unknown>;
  /** One of so many changes is tried, where each takes long. */
  every?: number;
}

let count = 0;
/** The content as a file of its own. */
async function asFile(content: Buffer, name = 'given'): Promise<string> {
  const dir = join(home, 'in', String(++count));
  await mkdir(dir);
  await writeFile(join(dir, name), content);
  return join(dir, name);
}
const project = (path: string): Promise<Buffer> => readFile(join(packageRoot, path));
const all = async (dir: string, pattern: RegExp): Promise<Buffer[]> => {
  const names = (await readdir(join(packageRoot, dir), { recursive: true })).filter((name) =>
    pattern.test(name),
  );
  return Promise.all(names.slice(0, 40).map((name) => project(join(dir, name))));
};

/** A kernel's package, as an archive that a stranger made. */
async function package_(): Promise<Buffer> {
  const root = await mkdtemp(join(home, 'out', 'root-'));
  const release = '6.1.0-1-x';
  await mkdir(join(root, 'DEBIAN'));
  await writeFile(
    join(root, 'DEBIAN/control'),
    'Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n',
  );
  await mkdir(join(root, `lib/modules/${release}/kernel`), { recursive: true });
  await mkdir(join(root, 'boot'));
  await writeFile(join(root, `boot/vmlinuz-${release}`), 'x');
  await writeFile(join(root, `boot/config-${release}`), 'CONFIG_XFS_FS=m\n');
  await writeFile(join(root, `lib/modules/${release}/modules.builtin`), '');
  await symlink('/etc', join(root, `lib/modules/${release}/build`));
  await execa('dpkg-deb', ['--root-owner-group', '-Znone', '-b', root, `${root}.deb`]);
  return readFile(`${root}.deb`);
}

const kinds: Record<string, Kind> = {
  'a log': {
    seeds: async () => [...(await all('harness/test/logs', /\.log$/))],
    read: async (content) => (await import('../../log/classify.js')).classifyLog(content.toString('latin1')),
  },
  'a scenario': {
    seeds: () => all('scenarios', /(?<!matrix)\.yaml$/),
    read: async (content) =>
      (await import('../../scenario/load-scenario.js')).loadScenario(await asFile(content, 'x.yaml')),
  },
  'a matrix': {
    seeds: () => all('scenarios', /matrix\.yaml$/),
    read: async (content) =>
      (await import('../../scenario/load-matrix.js')).loadMatrix(await asFile(content, 'x.matrix.yaml'), {
        known: {
          kernels: ['debian-6.1'],
          modules: ['stock', 'unpatched'],
          images: ['minimal'],
          scenarios: ['xfs-loopback'],
        },
        present: ['debian-6.1'],
        stock: () => undefined,
      } as never),
  },
  "a user's catalogue": {
    seeds: () => all('vm-images', /^kernels\.yaml$/),
    read: async (content) => {
      const [{ readYaml }, { catalogueSchema }] = [
        await import('../../base/yaml-file.js'),
        await import('../../kernel/catalogue.js'),
      ];
      return readYaml(await asFile(content, 'kernels.yaml'), catalogueSchema);
    },
  },
  'a patch': {
    seeds: () => all('vm-images/modules', /\.patch$/),
    read: async (content) => {
      const [{ readPatches }, { checkPatch }, { gateModules }] = [
        await import('../../module/patch-file.js'),
        await import('../../module/sources.js'),
        await import('../../bug/family.js'),
      ];
      const file = await asFile(content, 'x.patch');
      await readPatches(file);
      const [gate] = gateModules();
      if (gate) await checkPatch(file, gate);
    },
  },
  'a dkms.conf': {
    seeds: () => all('vm-images/modules', /dkms\.conf$/),
    read: async (content) => {
      const file = await asFile(content, 'dkms.conf');
      return (await import('../../module/dkms.js')).readDkmsConf(join(file, '..'), '6.1.0');
    },
  },
  'a Makefile': {
    seeds: () => all('vm-images/modules', /(?:Makefile|Kbuild)$/),
    read: async (content) => {
      const file = await asFile(content, 'Makefile');
      return (await import('../../module/makefile.js')).refuseUnread(join(file, '..'), true);
    },
  },
  'a module': {
    seeds: async () => [await aModule()],
    read: async (content) => {
      const file = await asFile(content, 'libiscsi_tcp.ko');
      const [{ readModule }, { codeKey }, { wantedSymbols }, { kindOf }] = [
        await import('../../kernel/module-file.js'),
        await import('../../kernel/module-code.js'),
        await import('../../kernel/symbol-versions.js'),
        await import('../../module/given.js'),
      ];
      await kindOf(file);
      await readModule(file);
      await codeKey(file);
      await wantedSymbols(file);
    },
  },
  'a kernel package': {
    seeds: async () => [await package_()],
    read: async (content) => {
      const [{ unpackPackage }, { layOut }] = [
        await import('../../package/package-files.js'),
        await import('../../kernel/store.js'),
      ];
      const out = await mkdtemp(join(home, 'out', 'k-'));
      await unpackPackage(await asFile(content, 'x.deb'), out);
      await layOut(out, 'x.deb', () => {});
    },
    every: 4,
  },
  'a run': {
    seeds: async () => {
      const { sampleRun } = await import('../support/sample-run.js');
      return [Buffer.from(JSON.stringify(sampleRun(), null, 1))];
    },
    read: async (content) => {
      const dir = join(await asFile(content, 'run.json'), '..');
      const { RunFolder } = await import('../../results/run-folder.js');
      const run = await (await RunFolder.open(home, dir)).read();
      for (const format of ['html', 'junit', 'tap', 'md'] as const)
        await (await import('../../report/report.js')).makeReport(run, format, dir, home);
    },
  },
  "a guest's console": {
    seeds: async () => [await project('harness/test/logs/debian-6.1.192-unpatched-serial.log')],
    read: async (content) => {
      const { GuestMarkers, LineSplitter } = await import('../../guest/guest-markers.js');
      const markers = new GuestMarkers('c0ffee00');
      const splitter = new LineSplitter((line) => void markers.push(line));
      splitter.push(content);
      splitter.flush();
    },
  },
  "a guest's facts": {
    seeds: async () => [
      Buffer.from(
        '@c0ffee00 release 6.1.0\n@c0ffee00 slab kmalloc-512 3 64\n@c0ffee00 kmsg 500 5 loopanic:c0ffee00:1: up\n@c0ffee00 kmsg.end 500 500\n@c0ffee00 gate.probe slab=0:&512 tail=8:&1\n',
      ),
    ],
    read: async (content) => {
      const { FactReader } = await import('../../guest/guest-facts.js');
      const facts = new FactReader('c0ffee00');
      for (const [index, line] of content.toString('latin1').split('\n').entries())
        facts.push(line, index + 1);
      return facts.facts(true);
    },
  },
  'a flattened dump': {
    seeds: async () => [
      Buffer.concat([Buffer.from('makedumpfile\0\0\0\0'), Buffer.alloc(4096 - 16, 1), Buffer.alloc(16)]),
    ],
    read: async (content) =>
      (await import('../../trial/flattened.js')).checkFlattened(await asFile(content), 2 ** 30),
  },
  "crash's answers": {
    seeds: async () => [Buffer.from(KMEM), Buffer.from(BACKTRACE)],
    read: async (content) => {
      const output = await import('../../forensics/crash-output.js');
      const text = content.toString('latin1');
      output.parseBacktrace(text);
      output.parseLabelledWords(text);
      output.parseMembers(text);
      output.parseFragments(text, 17);
      output.parseKmem(text);
      output.parseBytes(text);
      output.parseValue(text);
      output.parseAddresses(text);
    },
  },
};

const KMEM = `CACHE             OBJSIZE  ALLOCATED     TOTAL  SLABS  SSIZE  NAME
ffff888004848a00      512       1232      2112     33    32k  kmalloc-512
  SLAB              MEMORY            NODE  TOTAL  ALLOCATED  FREE
  ffffea0000123400  ffff88800ce90000     0     64         59     5
  FREE / [ALLOCATED]
  [ffff88800ce90400]
`;
const BACKTRACE = `PID: 123      TASK: ffff888004848a00  CPU: 1    COMMAND: "tgtd"
 #0 [ffffc90000123a00] machine_kexec at ffffffff81066a20
 #1 [ffffc90000123b00] tcp_recvmsg at ffffffff81066a20
    RIP: ffffffff813c9d0f  RSP: ffffc90000123b98  RFLAGS: 00010246
`;

/** A kernel's module, if the cache of this host has one; without, a program is an ELF file too. */
async function aModule(): Promise<Buffer> {
  for (const name of await readdir(modules, { recursive: true }).catch(() => []))
    if (name.endsWith('.ko')) return readFile(join(modules, name));
  return (await readFile(process.execPath)).subarray(0, 200_000);
}

for (const [what, { seeds, read, every = 1 }] of Object.entries(kinds))
  test.serial(`${what}, changed at random, is read or refused in one line`, async (t) => {
    t.timeout(600_000);
    const from = await seeds();
    if (from.length === 0) from.push(Buffer.from(''));
    let refused = 0;
    let slowest = 0;
    await fc.assert(
      fc.asyncProperty(change, async (given) => {
        const content = changed(from[given.seed % from.length] as Buffer, given);
        const began = performance.now();
        try {
          await read(content);
        } catch (error) {
          if (!(error instanceof LoopanicError)) throw error;
          refused++;
        }
        slowest = Math.max(slowest, (performance.now() - began) / 1000);
        await rm(join(home, 'in', String(count)), { recursive: true, force: true });
        if (slowest > MOST_SECONDS) throw new Error(`it took ${slowest.toFixed(1)} s`);
        const { rss } = process.memoryUsage();
        if (rss > MOST_MIB * 2 ** 20) throw new Error(`it took ${Math.round(rss / 2 ** 20)} MiB`);
      }),
      { numRuns: Math.ceil(RUNS / every), endOnFailure: true },
    );
    t.deepEqual(elsewhere, []);
    t.log(
      `${Math.ceil(RUNS / every)} changes of ${from.length} files, ${refused} refused, slowest ${slowest.toFixed(2)} s`,
    );
  });
