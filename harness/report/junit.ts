import { create } from 'xmlbuilder2';
import type { RunCell, RunDocument } from '../results/run-schema.js';
import {
  cellName,
  gateText,
  missText,
  moduleText,
  rateText,
  repeatCommand,
  standing,
  tellingTrial,
  titleOf,
  unfinished,
} from './cell-state.js';

/**
 * JUnit XML as CI servers read it (the schema of Ant's JUnit task): a suite for each kernel, a test case for each cell. A contradiction
 * is a failure, a cell without a verdict an error; a kernel that was left out is a skipped case. A run that is not whole has an error of
 * its own, or its missing cells would not be missed.
 */
export function junitReport(run: RunDocument): string {
  const root = create({ version: '1.0', encoding: 'UTF-8' }).ele('testsuites');
  const kernels = [
    ...new Set([...run.cells.map(({ kernel }) => kernel), ...run.skipped.map(({ kernel }) => kernel)]),
  ];
  for (const [id, kernel] of kernels.entries()) {
    const cells = run.cells.filter((cell) => cell.kernel === kernel);
    const skipped = run.skipped.filter((entry) => entry.kernel === kernel);
    const count = (wanted: string): string =>
      String(cells.filter((cell) => standing(cell, run) === wanted).length);
    const time = cells.reduce((sum, cell) => sum + cell.durationSeconds, 0);
    const suite = root.ele('testsuite', {
      id: String(id),
      package: 'loopanic',
      name: cleaned(kernel),
      timestamp: run.startedAt.replace(/\.\d+Z$|Z$/, ''),
      hostname: cleaned(run.host.hostname),
      tests: String(cells.length + skipped.length),
      failures: count('contradicted'),
      errors: count('undecided'),
      skipped: String(skipped.length),
      time: time.toFixed(3),
    });
    const properties = suite.ele('properties');
    properties.ele('property', { name: 'run', value: run.run });
    properties.ele('property', { name: 'command', value: cleaned(titleOf(run)) });
    properties.ele('property', { name: 'accel', value: run.host.accel });
    for (const cell of cells) {
      const test = suite.ele('testcase', {
        name: cleaned(`${cell.module} ${cell.scenario}`),
        classname: className(kernel),
        time: cell.durationSeconds.toFixed(3),
      });
      const kind = { contradicted: 'failure', undecided: 'error', ok: null }[standing(cell, run)];
      if (kind)
        test
          .ele(kind, { type: cell.verdict ?? 'not-judged', message: cleaned(messageOf(cell)) })
          .txt(cleaned(detail(cell)));
    }
    for (const { why } of skipped)
      suite
        .ele('testcase', { name: 'all cells', classname: className(kernel), time: '0' })
        .ele('skipped')
        .txt(cleaned(why));
    suite
      .ele('system-out')
      .txt(
        cleaned(
          cells
            .map((cell) => `${cellName(cell)}: ${cell.verdict}: ${cell.reason}; module: ${moduleText(cell)}`)
            .join('\n'),
        ),
      );
    suite.ele('system-err').txt(cleaned(cells.flatMap((cell) => cell.warnings).join('\n')));
  }
  const partial = unfinished(run);
  if (partial !== null)
    root
      .ele('testsuite', {
        ...{ id: String(kernels.length), package: 'loopanic', name: 'run' },
        timestamp: run.startedAt.replace(/\.\d+Z$|Z$/, ''),
        hostname: cleaned(run.host.hostname),
        ...{ tests: '1', failures: '0', errors: '1', skipped: '0', time: '0' },
      })
      .ele('properties')
      .ele('property', { name: 'run', value: run.run })
      .up()
      .up()
      .ele('testcase', { name: 'the run is whole', classname: className('run'), time: '0' })
      .ele('error', { type: 'not-whole', message: partial })
      .txt(partial)
      .up()
      .up()
      .ele('system-out')
      .up()
      .ele('system-err');
  return root.end({ prettyPrint: true });
}

/** CI servers take what stands behind the last dot for the class, so an id must have none. */
function className(kernel: string): string {
  return `loopanic.${cleaned(kernel).replaceAll('.', '_')}`;
}

function messageOf(cell: RunCell): string {
  const expected = cell.expected
    ? `, expected ${cell.expected.verdict} (${cell.expected.why})`
    : ', of which nothing was expected (--no-expectation-ok)';
  return `${cellName(cell)}: ${cell.verdict ?? 'not judged'}${expected}`;
}

function detail(cell: RunCell): string {
  const trial = tellingTrial(cell);
  return [
    cell.reason,
    `panics: ${rateText(cell)}; gate: ${gateText(cell)}; wrong clean, at most: ${missText(cell)}`,
    `module: ${moduleText(cell)}`,
    ...(trial ? [`trial ${trial.trial}: ${trial.outcome}: ${trial.reason}`, `folder: ${trial.folder}`] : []),
    `repeat: ${repeatCommand(cell, trial)}`,
  ].join('\n');
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is removed
const NO_XML = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g;

/** XML 1.0 has no control characters; logs do. And xmlbuilder2 takes what looks like an entity for one. */
function cleaned(text: string): string {
  return text.replace(NO_XML, '\ufffd').replaceAll('&', '&amp;');
}
