import { relative, resolve } from 'node:path';
import { EXIT } from '../../base/errors.js';
import { packageRoot } from '../../base/paths.js';
import { printResult } from '../context.js';

export interface NightlyArgs {
  file: string;
  at: string;
  for: 'systemd' | 'github' | 'gitlab';
  confidence: number;
  trials: number;
  keepRuns: number;
  json: boolean;
  results: string;
}

/** `loopanic nightly-unit`: what runs a matrix every night: a systemd service and timer and a cron line, or a job of a CI service. Nothing is installed. */
export async function nightlyUnit(args: NightlyArgs): Promise<number> {
  const [hour = '2', minute = '30'] = args.at.split(':');
  if (args.for !== 'systemd') {
    const text = args.for === 'github' ? githubJob(args, Number(hour), Number(minute)) : gitlabJob(args);
    printResult(args.json, { [args.for]: text }, () => [text]);
    return EXIT.ok;
  }
  const quote = (word: string): string =>
    /^[\w./@%+=:,-]+$/.test(word) ? word : `"${word.replace(/["\\]/g, '\\$&')}"`;
  const options = [
    '--confidence',
    args.confidence,
    '--trials',
    args.trials,
    '--keep-runs',
    args.keepRuns,
    '--results',
    resolve(args.results),
  ];
  const command = [
    process.execPath,
    `${packageRoot}/dist/cli/main.js`,
    'matrix',
    resolve(args.file),
    ...options,
  ]
    .map((word) => quote(String(word)))
    .join(' ');
  const service = `# /etc/systemd/system/loopanic-nightly.service
[Unit]
Description=loopanic nightly matrix

[Service]
Type=oneshot
ExecStart=${command.replaceAll('%', '%%')}
# 1: a cell contradicts its expectation; 3: a cell has no verdict. Both make the unit fail, as they should.
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
  const cron = `# crontab -e\n${Number(minute)} ${Number(hour)} * * * ${command.replaceAll('%', '\\%')}`;
  printResult(args.json, { service, timer, cron }, () => [
    service,
    timer,
    '# then: systemctl enable --now loopanic-nightly.timer; or, without systemd:',
    cron,
  ]);
  return EXIT.ok;
}

/** Exit codes need no translation: whatever is not 0 fails the job, and the reports are made in any case. */
function githubJob({ file, confidence, trials }: NightlyArgs, hour: number, minute: number): string {
  return `# .github/workflows/loopanic-nightly.yml; the time is UTC
name: loopanic nightly
on:
  schedule:
    - cron: '${minute} ${hour} * * *'
  workflow_dispatch:
jobs:
  matrix:
    runs-on: [self-hosted, linux, x64] # with KVM: minutes instead of hours
    timeout-minutes: 240
    steps:
      - uses: actions/checkout@v4
      - run: npm ci && npx loopanic setup
      - run: npx loopanic matrix ${matrixPath(file)} --confidence ${confidence} --trials ${trials}
      - if: always()
        run: |
          run=$(ls -t results | grep -m1 Z-)
          npx loopanic report "$run" --format md >>"$GITHUB_STEP_SUMMARY"
          npx loopanic report "$run" --format junit --output results/junit.xml
          npx loopanic report "$run"
      - if: always()
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
    - npx loopanic matrix ${matrixPath(file)} --confidence ${confidence} --trials ${trials}
  after_script:
    - run=$(ls -t results | grep -m1 Z-)
    - npx loopanic report "$run" --format junit --output junit.xml
    - npx loopanic report "$run"
  artifacts:
    when: always
    paths: [results]
    reports:
      junit: junit.xml
`;
}

/** A file of loopanic's own by its path in the project, which is what a job checks out. */
function matrixPath(file: string): string {
  const path = relative(packageRoot, resolve(file));
  return path.startsWith('..') ? file : path;
}
