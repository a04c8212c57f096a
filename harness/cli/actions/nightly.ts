import { userInfo } from 'node:os';
import { relative, resolve } from 'node:path';
import { EXIT, UsageError } from '../../base/errors.js';
import { harmless } from '../../base/harmless.js';
import { packageRoot } from '../../base/paths.js';
import { shellWord } from '../../base/shell-word.js';
import { readYaml } from '../../base/yaml-file.js';
import { matrixFile } from '../../scenario/load-matrix.js';
import { matrixSchema } from '../../scenario/matrix-schema.js';
import { printResult } from '../context.js';

export interface NightlyArgs {
  file: string;
  at: string;
  for: 'systemd' | 'github' | 'gitlab';
  confidence: number;
  trials: number;
  keepRuns: number;
  /** Machines that share a night; 1: one does it all. */
  shards: number;
  json: boolean;
  results: string;
  accel: string;
}

/**
 * `loopanic nightly-unit`: what runs a matrix every night: a systemd service and timer and a cron line, or a job of a CI service. Nothing
 * is installed.
 */
export async function nightlyUnit(given: NightlyArgs): Promise<number> {
  const file = await matrixFile(given.file);
  const args = { ...given, file };
  if (!Number.isInteger(args.shards) || args.shards < 1 || (args.for === 'systemd' && args.shards > 1))
    throw new UsageError(
      'bad-usage',
      `--shards ${args.shards}: ${args.for === 'systemd' ? 'is for --for github or gitlab: one machine needs none' : 'must be a number of machines'}`,
    );
  for (const [name, word] of [
    ['FILE', file],
    ['--results', args.results],
    ['XDG_CACHE_HOME', process.env.XDG_CACHE_HOME ?? ''],
    ['XDG_CONFIG_HOME', process.env.XDG_CONFIG_HOME ?? ''],
    ['the folder of loopanic', packageRoot],
  ] as const)
    if (args.for !== 'systemd' && word.includes('${{'))
      throw new UsageError(
        'bad-usage',
        `${name}: ${word}: holds an expression of GitHub's (\${{): rename it`,
      );
    else if (harmless(word) !== word || word.includes('\n'))
      throw new UsageError(
        'bad-usage',
        `${name}: ${JSON.stringify(word)}: holds a control character, which would be a line of its own in a unit: rename it`,
      );
  await readYaml(file, matrixSchema);
  const [hour = '2', minute = '30'] = args.at.split(':');
  if (args.for !== 'systemd') {
    const text = ciJob(args, Number(hour), Number(minute));
    printResult(args.json, { [args.for]: text }, () => [text]);
    return EXIT.ok;
  }
  const command = [
    ...[process.execPath, `${packageRoot}/dist/cli/main.js`, 'matrix', resolve(file)],
    ...['--confidence', args.confidence, '--trials', args.trials, '--keep-runs', args.keepRuns],
    ...['--results', resolve(args.results)],
    ...(args.accel === 'auto' ? [] : ['--accel', args.accel]),
  ].map(String);
  // The same caches and catalogue as here: of a kernel that is in no cache nothing is run.
  const environment = ['XDG_CACHE_HOME', 'XDG_CONFIG_HOME'].flatMap((name) => {
    const value = process.env[name];
    return value ? [`${name}=${value}`] : [];
  });
  const service = `# /etc/systemd/system/loopanic-nightly.service
[Unit]
Description=loopanic nightly matrix

[Service]
Type=oneshot
User=${userName()}
WorkingDirectory=${packageRoot.replaceAll('%', '%%')}
${environment.map((line) => `Environment=${systemdWord(line, false)}\n`).join('')}ExecStart=${command.map((word) => systemdWord(word)).join(' ')}
# 1: a cell contradicts its expectation; 3: a cell has no verdict. Both make the unit fail, as they should. The run's folder has report.html.
Nice=10
`;
  const timer = `# /etc/systemd/system/loopanic-nightly.timer
[Unit]
Description=loopanic nightly matrix

[Timer]
OnCalendar=*-*-* ${args.at}:00
Persistent=true

[Install]
WantedBy=timers.target
`;
  const shell = [...environment, ...command].map(shellWord).join(' ');
  // In a crontab a bare % ends the command, in quotes too.
  const cron = `# crontab -e\n${Number(minute)} ${Number(hour)} * * * ${environment.length > 0 ? 'env ' : ''}${shell.replaceAll('%', '\\%')}`;
  printResult(args.json, { service, timer, cron }, () => [
    service,
    timer,
    '# then: systemctl enable --now loopanic-nightly.timer; or, without systemd:',
    cron,
  ]);
  return EXIT.ok;
}

/** A user without an entry in passwd has a number only. */
function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return String(process.getuid?.());
  }
}

/** A word of a unit's command, or of its environment, where systemd expands no variables (systemd.exec): nothing in it is expanded. */
function systemdWord(word: string, isCommand = true): string {
  const specifiers = word.replaceAll('%', '%%');
  const plain = isCommand ? specifiers.replaceAll('$', '$$$$') : specifiers;
  return /^[\w./@%+=:,$-]+$/.test(plain) ? plain : `"${plain.replace(/["\\]/g, '\\$&')}"`;
}

function ciJob(args: NightlyArgs, hour: number, minute: number): string {
  const isShared = args.shards > 1;
  if (args.for === 'github') return (isShared ? githubShards : githubJob)(args, hour, minute);
  return (isShared ? gitlabShards : gitlabJob)(args);
}

const githubHead = (
  hour: number,
  minute: number,
): string => `# .github/workflows/loopanic-nightly.yml; the time is UTC
name: loopanic nightly
on:
  schedule:
    - cron: '${minute} ${hour} * * *'
  workflow_dispatch:
jobs:
  matrix:
    runs-on: [self-hosted, linux, x64] # with KVM: minutes instead of hours
    timeout-minutes: 240
`;

/** A job for each part, which fails only if it made no run, and one that judges them together. */
function githubShards(
  { file, confidence, trials, shards }: NightlyArgs,
  hour: number,
  minute: number,
): string {
  const parts = Array.from({ length: shards }, (_, index) => index + 1).join(', ');
  return `${githubHead(hour, minute)}    strategy:
      fail-fast: false
      matrix:
        shard: [${parts}]
    steps:
      - uses: actions/checkout@v4
      - run: npm ci && npx loopanic setup
      - run: |
          npx loopanic matrix ${matrixPath(file)} --shard \${{ matrix.shard }}/${shards} --confidence ${confidence} --trials ${trials} --json >results/last.json || ${RUN_ID}
      - if: always()
        uses: actions/upload-artifact@v4
        with:
          name: loopanic-shard-\${{ matrix.shard }} # logs and dumps are copies of a guest's memory: mind who may read them
          path: results
  report:
    needs: matrix
    if: always()
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - run: npm ci
      - uses: actions/download-artifact@v4
        with:
          path: shards
      - run: npx loopanic merge shards/*/*Z-* --json >results/last.json
${GITHUB_REPORT}      - if: always()
        uses: actions/upload-artifact@v4
        with:
          name: loopanic-results
          path: results
`;
}

function gitlabShards({ file, confidence, trials, shards }: NightlyArgs): string {
  return `# .gitlab-ci.yml; the time is that of the pipeline schedule
loopanic-matrix:
  tags: [kvm]
  timeout: 4h
  parallel: ${shards}
  rules:
    - if: $CI_PIPELINE_SOURCE == "schedule"
  script:
    - npm ci && npx loopanic setup
    - |
      npx loopanic matrix ${matrixPath(file)} --shard "$CI_NODE_INDEX/$CI_NODE_TOTAL" --confidence ${confidence} --trials ${trials} --json >results/last.json || ${RUN_ID}
  artifacts:
    when: always
    paths: [results]
loopanic-report:
  needs: [loopanic-matrix]
  rules:
    - if: $CI_PIPELINE_SOURCE == "schedule"
      when: always
  script:
    - npm ci
    - npx loopanic merge results/*Z-* --json >results/last.json
  after_script:
    - npx loopanic report "$(${RUN_ID})" --format junit --output junit.xml
  artifacts:
    when: always
    paths: [results]
    reports:
      junit: junit.xml
`;
}

/** Exit codes need no translation: whatever is not 0 fails the job, and the reports are made in any case, of this run and no other. */
function githubJob({ file, confidence, trials }: NightlyArgs, hour: number, minute: number): string {
  return `${githubHead(hour, minute)}    steps:
      - uses: actions/checkout@v4
      - run: npm ci && npx loopanic setup
      - run: |
          npx loopanic matrix ${matrixPath(file)} --confidence ${confidence} --trials ${trials} --json >results/last.json
${GITHUB_REPORT}      - if: always()
        uses: actions/upload-artifact@v4
        with:
          name: loopanic-results # logs and dumps are copies of a guest's memory: mind who may read them
          path: results
`;
}

function gitlabJob({ file, confidence, trials }: NightlyArgs): string {
  return `# .gitlab-ci.yml; the time is that of the pipeline schedule
loopanic-nightly:
  tags: [kvm]
  timeout: 4h
  rules:
    - if: $CI_PIPELINE_SOURCE == "schedule"
  script:
    - npm ci && npx loopanic setup
    - |
      npx loopanic matrix ${matrixPath(file)} --confidence ${confidence} --trials ${trials} --json >results/last.json
  after_script:
    - npx loopanic report "$(${RUN_ID})" --format junit --output junit.xml
  artifacts:
    when: always
    paths: [results]
    reports:
      junit: junit.xml
`;
}

/** The run that the job has just made; fails if it made none. */
const RUN_ID = `node -p "JSON.parse(require('fs').readFileSync('results/last.json')).run"`;

const GITHUB_REPORT = `      - if: always()
        run: |
          run=$(${RUN_ID})
          npx loopanic report "$run" --format md >>"$GITHUB_STEP_SUMMARY"
          npx loopanic report "$run" --format junit --output results/junit.xml
`;

/** A file of loopanic's own by its path in the project, which is what a job checks out. */
function matrixPath(file: string): string {
  const path = relative(packageRoot, resolve(file));
  return shellWord(path.startsWith('..') ? file : path);
}
