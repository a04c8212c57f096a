import { resolve } from 'node:path';
import { EXIT } from '../../base/errors.js';
import { packageRoot } from '../../base/paths.js';
import { printResult } from '../context.js';

export interface NightlyArgs {
  file: string;
  at: string;
  confidence: number;
  trials: number;
  keepRuns: number;
  json: boolean;
  results: string;
}

/** `loopanic nightly-unit`: a systemd service and timer, and a cron line, that run a matrix every night. Nothing is installed. */
export async function nightlyUnit(args: NightlyArgs): Promise<number> {
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
  const [hour = '2', minute = '30'] = args.at.split(':');
  const cron = `# crontab -e\n${Number(minute)} ${Number(hour)} * * * ${command.replaceAll('%', '\\%')}`;
  printResult(args.json, { service, timer, cron }, () => [
    service,
    timer,
    '# then: systemctl enable --now loopanic-nightly.timer; or, without systemd:',
    cron,
  ]);
  return EXIT.ok;
}
