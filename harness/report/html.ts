import { existsSync } from 'node:fs';
import { join, relative } from 'node:path';
import type { RunCell, RunDocument } from '../results/run-schema.js';
import {
  cellName,
  contradicts,
  missText,
  rateText,
  repeatCommand,
  signOf,
  standing,
  tellingTrial,
  totals,
} from './cell-state.js';
import { curveSvg } from './curve-svg.js';
import { logExcerpt } from './log-excerpt.js';
import { STYLE } from './style.js';
import { survivalCurve } from './survival.js';

/** Text in HTML, elements and attributes alike. */
function h(text: string): string {
  return text.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
}

const anchor = (cell: RunCell): string => `cell-${cellName(cell).replace(/[^\w-]/g, '_')}`;

/**
 * One page for the morning: no scripts, nothing from a network. `folder` is the run's, where logs and dumps are; `base` the folder that the page will be in, which links are
 * relative to.
 */
export async function htmlReport(run: RunDocument, folder: string, base: string): Promise<string> {
  const kernels = [...new Set(run.cells.map(({ kernel }) => kernel))];
  const details = await Promise.all(run.cells.map((cell) => cellSection(cell, folder, base)));
  const bad = run.cells.filter((cell) => standing(cell) !== 'ok');
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>loopanic ${h(run.run)}: ${h(totals(run))}</title>
<style>${STYLE}</style>
</head>
<body>
<a class="skip" href="#matrix">Skip to the matrix</a>
<header>
<h1>loopanic ${h(run.command)} <small>${h(run.run)}</small></h1>
<p class="summary ${bad.length > 0 ? 'bad' : 'good'}">${h(totals(run))}${run.finishedAt ? '' : '; not finished'}${run.interrupted ? '; interrupted' : ''}</p>
<p>${h(run.startedAt)} on ${h(run.host.hostname)}, ${h(run.host.accel)} (${h(run.host.accelReason)}), ${Math.round(run.durationSeconds)} s; ${h(run.versions.qemu)}; loopanic ${h(run.versions.loopanic)}${run.confidence === null ? '' : `; confidence ${run.confidence * 100} %`}</p>
${bad.length > 0 ? `<nav aria-label="What needs a look"><h2>Needs a look</h2><ul>${bad.map((cell) => `<li><a href="#${anchor(cell)}">${h(cellName(cell))}</a>: ${h(cell.verdict ?? 'not judged')}${contradicts(cell) ? `, expected ${h(cell.expected?.verdict ?? '')}` : ''}: ${h(cell.reason)}</li>`).join('')}</ul></nav>` : ''}
</header>
<main>
<section id="matrix"><h2>Matrix</h2>
<p class="legend"><span>✖ panics</span> <span>✔ clean</span> <span>? inconclusive</span> <span>∅ void: its positive control did not panic</span> <span>thick frame: not as expected</span></p>
${kernels.map((kernel) => heatMap(run, kernel)).join('\n')}
${run.skipped.length > 0 ? `<h3>Skipped: nothing follows for these</h3><ul>${run.skipped.map(({ kernel, why }) => `<li>${h(kernel)}: ${h(why)}</li>`).join('')}</ul>` : ''}
</section>
<section><h2>Time to a panic</h2>
<p>Share of boots that have not panicked (Kaplan–Meier); short strokes are boots whose workload ended.</p>
${kernels.map((kernel) => survival(run, kernel)).join('\n')}
</section>
<section><h2>Cells</h2>
${details.join('\n')}
</section>
</main>
</body>
</html>
`;
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
      const odd = contradicts(cell) ? ' contradicted' : '';
      return `<td class="${verdict ?? 'pending'} ${heat}${odd}"><a href="#${anchor(cell)}"><span class="sign" aria-hidden="true">${signOf(cell)}</span> ${verdict ?? 'not judged'}<br><small>${numbers}${odd ? ` expected ${h(cell.expected?.verdict ?? '')}` : ''}${cell.warnings.length > 0 ? ' ⚠' : ''}</small></a></td>`;
    });
    return `<tr><th scope="row">${h(module)}</th>${row.join('')}</tr>`;
  });
  return `<div class="scroll" tabindex="0" role="region" aria-label="${h(kernel)}"><table><caption>${h(kernel)} <small>${h(release)}</small></caption><thead><tr><td></td>${scenarios.map((name) => `<th scope="col">${h(name)}</th>`).join('')}</tr></thead><tbody>${rows.join('')}</tbody></table></div>`;
}

function survival(run: RunDocument, kernel: string): string {
  const curves = run.cells
    .filter((cell) => cell.kernel === kernel && cell.statistics && cell.statistics.counted > 0)
    .map((cell) => ({
      name: h(`${cell.module} ${cell.scenario}`.slice(0, 32)),
      curve: survivalCurve(cell.trials),
    }));
  if (curves.length === 0) return '';
  // A picture of more than six curves is read by nobody.
  const pictures: string[] = [];
  for (let at = 0; at < curves.length; at += 6)
    pictures.push(curveSvg(curves.slice(at, at + 6), h(`survival curves of ${kernel}`)));
  return `<h3>${h(kernel)}</h3>${pictures.join('')}`;
}

async function cellSection(cell: RunCell, folder: string, base: string): Promise<string> {
  const trial = tellingTrial(cell);
  const excerpt = trial ? await logExcerpt(folder, trial) : [];
  const link = (path: string, text: string): string =>
    existsSync(join(folder, path))
      ? `<a href="${h(relative(base, join(folder, path)).split('/').map(encodeURIComponent).join('/'))}">${h(text)}</a>`
      : '';
  const trials = cell.trials.map((entry) => {
    const files = ['outcome.json', 'serial.log', 'guest.log', 'vmcore-dmesg.txt', 'analysis.md', 'vmcore']
      .map((name) => link(`${entry.folder}/${name}`, name))
      .filter(Boolean);
    const { signature } = entry;
    const what = signature
      ? `${signature.object}, ${signature.length} bytes, ${signature.comm}`
      : entry.reason;
    return `<tr><td>${entry.trial}</td><td>${h(entry.outcome)}</td><td>${h(what)}</td><td>${(entry.timings.outcome ?? 0).toFixed(1)} s</td><td>${entry.seed}</td><td>${files.join(' ')}</td></tr>`;
  });
  const expected = cell.expected
    ? `expected ${h(cell.expected.verdict)}: ${h(cell.expected.why)}`
    : 'no expectation stated';
  const control = cell.control ? `<dt>Positive control</dt><dd>${h(cellName(cell.control))}</dd>` : '';
  const log = excerpt
    .map(({ number, text, marked }) => {
      const body = `${String(number).padStart(5)}  ${h(text)}`;
      return marked ? `<mark>${body}</mark>` : body;
    })
    .join('\n');
  return `<article id="${anchor(cell)}" class="${standing(cell)}">
<h3>${signOf(cell)} ${h(cell.module)} <small>${h(cell.kernel)}, ${h(cell.scenario)}</small></h3>
<p><strong>${h(cell.verdict ?? 'not judged')}</strong>${contradicts(cell) ? ' <strong>(contradicted)</strong>' : ''}: ${h(cell.reason)}; ${expected}</p>
${cell.warnings.map((warning) => `<p class="warning">⚠ ${h(warning)}</p>`).join('')}
<dl><dt>Panics (95 %)</dt><dd>${h(rateText(cell))}</dd><dt>Chance of a miss</dt><dd>${h(missText(cell))}</dd>${control}<dt>Repeat</dt><dd><code>${h(repeatCommand(cell, trial))}</code></dd>${trial?.analysis ? `<dt>Dump</dt><dd>${h(trial.analysis.text)}</dd>` : ''}</dl>
${trials.length > 0 ? `<div class="scroll" tabindex="0" role="region" aria-label="Trials of ${h(cellName(cell))}"><table class="trials"><thead><tr><th>trial</th><th>outcome</th><th>what</th><th>after</th><th>seed</th><th>files</th></tr></thead><tbody>${trials.join('')}</tbody></table></div>` : ''}
${log ? `<details${standing(cell) === 'ok' ? '' : ' open'}><summary>Console of trial ${trial?.trial}</summary><pre tabindex="0">${log}</pre></details>` : ''}
<p><a href="#matrix">Back to the matrix</a></p>
</article>`;
}
