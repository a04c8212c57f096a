import { existsSync } from 'node:fs';
import { join, relative } from 'node:path';
import type { RunCell, RunDocument } from '../results/run-schema.js';
import { percent } from '../verdict/cell-verdict.js';
import {
  cellName,
  expectedInstead,
  gateText,
  missText,
  moduleText,
  needsLook,
  proofText,
  rateText,
  repeatCommand,
  signOf,
  standing,
  tellingTrial,
  titleOf,
  totals,
  unfinished,
} from './cell-state.js';
import { curveSvg, curveSwatch } from './curve-svg.js';
import { logExcerpt } from './log-excerpt.js';
import { STYLE } from './style.js';
import { survivalCurve } from './survival.js';

/** Half of a character, which no address can hold. */
const LONE = /\p{Cs}/gu;

/** Text in HTML, elements and attributes alike. */
export function h(text: string): string {
  return text.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
}

/** Another for each cell: what may not stand in a fragment is spelled out. */
export const anchor = (name: string): string =>
  `cell-${name.replace(/[^A-Za-z0-9-]/g, (sign) => `_${sign.charCodeAt(0).toString(16)}_`)}`;

/**
 * One page for the morning: no scripts, nothing from a network. `folder` is the run's, where logs and dumps are; `base` the folder that
 * the page will be in, which links are relative to.
 */
export async function htmlReport(run: RunDocument, folder: string, base: string): Promise<string> {
  const kernels = [...new Set(run.cells.map(({ kernel }) => kernel))];
  const details = await Promise.all(run.cells.map((cell) => cellSection(cell, run, folder, base)));
  const look = needsLook(run);
  const partial = unfinished(run);
  const good = partial === null && run.cells.every((cell) => standing(cell, run) === 'ok');
  return htmlPage(
    `loopanic ${titleOf(run)} ${run.run}: ${totals(run)}`,
    { to: 'matrix', words: 'Skip to the matrix' },
    `<header>
<h1>loopanic ${h(titleOf(run))} <small>${h(run.run)}</small></h1>
<p class="summary ${good ? 'good' : 'bad'}">${h(totals(run))}${partial === null ? '' : `; ${h(partial)}`}</p>
<p>${h(run.startedAt)} on ${h(run.host.hostname)}, ${h(run.host.accel)} (${h(run.host.accelReason)}), ${Math.round(run.durationSeconds)} s; ${h(run.versions.qemu)}; loopanic ${h(run.versions.loopanic)}${run.confidence === null ? '' : `; confidence ${h(percent(run.confidence))}`}</p>${mergedText(run)}${hostsText(run)}
${look.length > 0 ? `<nav aria-label="What needs a look"><h2>Needs a look</h2><ul>${look.map((cell) => lookLine(cell, run)).join('')}</ul></nav>` : ''}
</header>
<main>
<section id="matrix"><h2>Matrix</h2>
<p class="legend"><span>✖ panics</span> <span>◐ exposed: the gate leaked, and nothing panicked</span> <span>✔ clean: gate read (nothing went through it), by odds (of enough boots), or no more than that it survived</span> <span>? inconclusive (hatched)</span> <span>∅ void: its positive control did not show the bug (hatched)</span> <span>‼ not as expected (thick frame)</span> <span>⚠ with a warning</span> <span>k/n: panics of the boots that tell; the darker, the more</span></p>
${kernels.map((kernel) => heatMap(run, kernel)).join('\n')}
${run.skipped.length > 0 ? `<h3>Skipped: nothing follows for these</h3><ul>${run.skipped.map(({ kernel, why }) => `<li>${h(kernel)}: ${h(why)}</li>`).join('')}</ul>` : ''}
</section>
<section id="times"><h2>Time to a panic</h2>
<p>Share of boots that have not panicked (Kaplan–Meier); short strokes are boots whose workload ended.</p>
${kernels.map((kernel) => survival(run, kernel)).join('\n')}
</section>
<section><h2>Cells</h2>
${details.join('\n')}
</section>
</main>`,
  );
}

/** A page that needs no network and runs no script; `skip` is for keyboards, `style` comes on top of the common one. */
export function htmlPage(
  title: string,
  skip: { to: string; words: string },
  body: string,
  style = '',
): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>${h(title)}</title>
<style>${STYLE}${style}</style>
</head>
<body>
<a class="skip" href="#${skip.to}">${skip.words}</a>
${body}
</body>
</html>
`;
}

/** Of a run that was made of several: of which, and where those ran. */
function mergedText({ mergedFrom }: RunDocument): string {
  if (mergedFrom.length === 0) return '';
  const rows = mergedFrom.map(
    ({ run, shard, hostname, accel, qemu, cells }) =>
      `<li>${h(run)}${shard === null ? '' : ` (shard ${h(shard)})`}: ${cells} cells on ${h(hostname)}, ${h(accel)}; ${h(qemu)}</li>`,
  );
  return `<details><summary>merged from ${mergedFrom.length} runs</summary><ul>${rows.join('')}</ul></details>`;
}

/** Of a run whose trials were not all on its own host: where they were. */
function hostsText(run: RunDocument): string {
  const hosts = new Map<string, number>();
  for (const { host, accel, timings } of run.cells.flatMap(({ trials }) => trials)) {
    // It never was anywhere.
    if (host === null && Object.keys(timings).length === 0) continue;
    const { name, qemu } = host ?? { name: 'an unknown host', qemu: 'an unknown QEMU' };
    const text = `${name}, ${accel}; ${qemu}`;
    hosts.set(text, (hosts.get(text) ?? 0) + 1);
  }
  if (hosts.size < 2 && !isElsewhere(run)) return '';
  const rows = [...hosts].sort().map(([text, trials]) => `<li>${h(text)}: ${trials} trials</li>`);
  return `<details><summary>trials on ${hosts.size === 1 ? 'another host' : `${hosts.size} hosts`}</summary><ul>${rows.join('')}</ul></details>`;
}

/** True if a trial ran on another host than the run's own. */
function isElsewhere({ host, cells }: RunDocument): boolean {
  return cells.some(({ trials }) => trials.some((trial) => trial.host && trial.host.name !== host.hostname));
}

function lookLine(cell: RunCell, run: RunDocument): string {
  const what =
    standing(cell, run) === 'contradicted'
      ? `${cell.verdict}, ${expectedInstead(cell)}: ${cell.reason}`
      : standing(cell, run) === 'ok'
        ? `${cell.verdict}, with a warning: ${cell.warnings.join('; ')}`
        : `${cell.verdict ?? 'not judged'}: ${cell.reason}`;
  const sign = standing(cell, run) === 'ok' ? '⚠' : signOf(cell, run);
  return `<li>${sign} <a href="#${anchor(cellName(cell))}">${h(cellName(cell))}</a>: ${h(what)}</li>`;
}

function heatMap(run: RunDocument, kernel: string): string {
  const cells = run.cells.filter((cell) => cell.kernel === kernel);
  const scenarios = [...new Set(cells.map(({ scenario }) => scenario))];
  const modules = [...new Set(cells.map(({ module }) => module))];
  const release = cells[0]?.kernelInfo?.release ?? '';
  const rows = modules.map((module) => {
    const row = scenarios.map((scenario) => {
      const cell = cells.find((entry) => entry.module === module && entry.scenario === scenario);
      if (!cell) return '<td class="none"></td>';
      const { statistics, verdict } = cell;
      const share = statistics?.rate?.share;
      const numbers =
        statistics && statistics.counted > 0 ? `${statistics.panicked}/${statistics.counted}` : '';
      const heat = share === undefined || verdict === 'void' ? 'na' : `h${Math.ceil(share * 4)}`;
      const odd = standing(cell, run) === 'contradicted' ? ' contradicted' : '';
      return `<td class="${verdict ?? 'pending'} ${heat}${odd}"><a href="#${anchor(cellName(cell))}"><span class="sign" aria-hidden="true">${signOf(cell, run)}</span> ${verdict ?? 'not judged'}<br><small>${numbers}${proofText(cell) && ` ${proofText(cell)}`}${odd ? ` ${h(expectedInstead(cell))}` : ''}${cell.warnings.length > 0 ? ' ⚠' : ''}</small></a></td>`;
    });
    return `<tr><th scope="row">${h(module)}</th>${row.join('')}</tr>`;
  });
  return `<div class="scroll" tabindex="0" role="region" aria-label="${h(kernel)}"><table class="heat"><caption>${h(kernel)} <small>${h(release)}</small></caption><thead><tr><td></td>${scenarios.map((name) => `<th scope="col">${h(name)}</th>`).join('')}</tr></thead><tbody>${rows.join('')}</tbody></table></div>`;
}

/** Curves of the cells that panicked; one without a panic is a flat line, and is told in words. */
function survival(run: RunDocument, kernel: string): string {
  const told = run.cells.filter((cell) => cell.kernel === kernel && (cell.statistics?.counted ?? 0) > 0);
  if (told.length === 0) return '';
  const nameOf = (cell: RunCell): string => `${cell.module} ${cell.scenario}`;
  const curves = told
    .filter((cell) => (cell.statistics?.panicked ?? 0) > 0)
    .map((cell) => ({ name: nameOf(cell), curve: survivalCurve(cell.trials) }));
  const flat = told.filter((cell) => cell.statistics?.panicked === 0);
  const parts: string[] = [`<h3>${h(kernel)}</h3>`];
  // A picture of more than six curves is read by nobody.
  for (let at = 0; at < curves.length; at += 6) {
    const some = curves.slice(at, at + 6);
    const legend = some.map(({ name }, index) => `<li>${curveSwatch(index)} ${h(name)}</li>`).join('');
    parts.push(
      `<div class="scroll" tabindex="0" role="region" aria-label="${h(`survival curves of ${kernel}`)}">${curveSvg(some, h(`survival curves of ${kernel}`))}</div><ul class="curves">${legend}</ul>`,
    );
  }
  if (flat.length > 0) {
    const list = flat.map((cell) => `${nameOf(cell)} (${cell.statistics?.survived} boots)`).join(', ');
    parts.push(`<p>No boot panicked: ${h(list)}</p>`);
  }
  return parts.join('');
}

async function cellSection(cell: RunCell, run: RunDocument, folder: string, base: string): Promise<string> {
  const trial = tellingTrial(cell);
  const excerpt = trial ? await logExcerpt(folder, trial) : null;
  const link = (path: string, text: string): string =>
    existsSync(join(folder, path))
      ? `<a href="${h(
          relative(base, join(folder, path))
            .split('/')
            .map((part) => encodeURIComponent(part.replace(LONE, '\ufffd')))
            .join('/'),
        )}">${h(text)}</a>`
      : '';
  const elsewhere = isElsewhere(run);
  const trials = cell.trials.map((entry) => {
    const files = [
      'outcome.json',
      'serial.log',
      'guest.log',
      'target-serial.log',
      'vmcore-dmesg.txt',
      'analysis.md',
      'vmcore',
    ]
      .map((name) => link(`${entry.folder}/${name}`, name))
      .filter(Boolean);
    const { signature } = entry;
    const what = signature
      ? `${signature.object}, ${signature.length} bytes, ${signature.comm}`
      : entry.reason;
    const where = elsewhere ? `<td>${h(entry.host?.name ?? '–')}</td>` : '';
    return `<tr><td>${entry.trial}</td>${where}<td>${h(entry.outcome)}</td><td>${h(what)}</td><td>${(entry.timings.outcome ?? 0).toFixed(1)} s</td><td>${entry.seed}</td><td>${files.join(' ')}</td></tr>`;
  });
  const expected = cell.expected
    ? `expected ${h(cell.expected.verdict)}: ${h(cell.expected.why)}`
    : 'no expectation stated';
  const control = cell.control ? `<dt>Positive control</dt><dd>${h(cellName(cell.control))}</dd>` : '';
  const log = (excerpt?.lines ?? [])
    .map(({ number, text, marked }) => {
      const body = `${String(number).padStart(5)}  ${h(text)}`;
      return marked ? `<mark>${body}</mark>` : body;
    })
    .join('\n');
  return `<article id="${anchor(cellName(cell))}" class="${standing(cell, run)}">
<h3>${signOf(cell, run)} ${h(cell.module)} <small>${h(cell.kernel)}, ${h(cell.scenario)}</small></h3>
<p><strong>${h(cell.verdict ?? 'not judged')}</strong>${standing(cell, run) === 'contradicted' ? ' <strong>(contradicted)</strong>' : ''}: ${h(cell.reason)}; ${expected}</p>
${cell.warnings.map((warning) => `<p class="warning">⚠ ${h(warning)}</p>`).join('')}
<dl><dt>Panics (95 %)</dt><dd>${h(rateText(cell))}</dd><dt>Gate</dt><dd>${h(gateText(cell))}</dd><dt>Wrong clean, at most</dt><dd>${h(missText(cell))}</dd><dt>Module</dt><dd>${h(moduleText(cell))}</dd>${control}<dt>Repeat</dt><dd><code>${h(repeatCommand(cell, trial))}</code></dd>${trial?.analysis ? `<dt>Dump</dt><dd>${h(trial.analysis.text)}</dd>` : ''}</dl>
${trials.length > 0 ? `<div class="scroll" tabindex="0" role="region" aria-label="Trials of ${h(cellName(cell))}"><table class="trials"><thead><tr><th>trial</th>${elsewhere ? '<th>host</th>' : ''}<th>outcome</th><th>what</th><th>after</th><th>seed</th><th>files</th></tr></thead><tbody>${trials.join('')}</tbody></table></div>` : ''}
${log ? `<details${standing(cell, run) === 'ok' ? '' : ' open'}><summary>Console of trial ${trial?.trial} (${h(excerpt?.file ?? '')})</summary><pre tabindex="0">${log}</pre></details>` : excerpt ? `<p>Console of trial ${trial?.trial}: ${h(excerpt.file)} is not there any more.</p>` : ''}
<p><a href="#matrix">Back to the matrix</a></p>
</article>`;
}
