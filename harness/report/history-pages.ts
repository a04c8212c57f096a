import { contentKey } from '../base/files.js';
import { type Night, type Trend, trendOf } from '../verdict/trend.js';
import { VERDICT_SIGN } from './cell-state.js';
import type { History, NightCell, NightRun } from './history-index.js';
import { anchor, h, htmlPage } from './html.js';

/** More nights than this are on a cell's own page only. */
const MOST_COLUMNS = 60;
/** A night that comes later than so many usual gaps was left out. */
const LATE = 1.75;
/** Earlier ones are counted. */
const MOST_GAPS = 3;
const DAY_MS = 24 * 3600 * 1000;
/** A distribution's kernel that nobody asked for a newer one of since. */
const STALE_DAYS = 21;

/** Of a cell in the name of its page. */
const LONGEST_NAME = 150;

/** When each kernel that is on this host was fetched, by id (ISO 8601). */
export type FetchedAt = ReadonlyMap<string, string>;

/** A page: its path below the history's folder, and its text. */
export interface Page {
  path: string;
  text: string;
}

interface Series {
  name: string;
  runs: NightRun[];
  /** Cells by name, each with one entry for each run, null where it was not in it. */
  cells: { name: string; nights: (NightCell | null)[]; trend: Trend }[];
}

const STATE_ORDER = ['new', 'flaky', 'fixed', 'steady', 'unknown'] as const;
const STATE_SIGN = {
  new: '▲ new',
  flaky: '≈ flaky',
  fixed: '▼ fixed',
  steady: '= steady',
  unknown: '? unknown',
} as const;

/**
 * The history of a results folder as pages that need no network and no script: index.html with nights × cells for each matrix, and a page for each
 * cell. Links to runs are relative: the pages stay in the results folder. `now`: milliseconds since 1970.
 */
export function historyPages({ runs, unread }: History, fetchedAt: FetchedAt, now: number): Page[] {
  const series = seriesOf(runs);
  const pages = series.flatMap((one, index) =>
    one.cells.map((cell) => ({ path: cellPath(index, cell.name), text: cellPage(one, cell) })),
  );
  const stale = staleInputs(series, fetchedAt, now);
  const body = `<header><h1>loopanic history</h1>
<p class="summary ${series.some(isBad) ? 'bad' : 'good'}">${h(summary(runs, series))}</p>
${stale.length > 0 ? `<h2>Stale</h2><ul>${stale.map((text) => `<li class="warning">${h(text)}</li>`).join('')}</ul>` : ''}
</header><main id="nights">
<p class="legend">${Object.entries(VERDICT_SIGN)
    .map(([verdict, sign]) => `<span>${sign} ${verdict}</span>`)
    .join(' ')} <span>‼ not as expected (thick frame)</span> <span>Δ compare tells a change</span></p>
<p><strong>new</strong>: bad, and was good before; <strong>fixed</strong>: the other way round; <strong>flaky</strong>: what changed may be chance (Fisher's exact test, p &gt; 0.01), or came and went.</p>
${series.map((one, index) => seriesSection(one, index)).join('\n')}
${unread.length > 0 ? `<section><h2>Not read: nothing follows from these</h2><ul>${unread.map(({ run, why }) => `<li>${h(run)}: ${h(why)}</li>`).join('')}</ul></section>` : ''}
</main>`;
  return [{ path: 'index.html', text: page('loopanic history', body) }, ...pages];
}

function seriesOf(runs: readonly NightRun[]): Series[] {
  const groups = new Map<string, NightRun[]>();
  for (const run of runs) groups.set(run.series, [...(groups.get(run.series) ?? []), run]);
  return (
    [...groups]
      .map(([name, own]) => {
        const names = [...new Set(own.flatMap(({ cells }) => cells.map((cell) => cell.name)))];
        const byName = own.map(({ cells }) => new Map(cells.map((cell) => [cell.name, cell])));
        const cells = names.map((cell) => {
          const nights = byName.map((map) => map.get(cell) ?? null);
          return { name: cell, nights, trend: trendOf(nights.map(nightOf)) };
        });
        cells.sort((a, b) => STATE_ORDER.indexOf(a.trend.state) - STATE_ORDER.indexOf(b.trend.state));
        return { name, runs: own, cells };
      })
      // What is run every night first; runs by hand have no name of their own.
      .sort((a, b) => Number(b.name.startsWith('matrix ')) - Number(a.name.startsWith('matrix ')))
  );
}

function summary(runs: readonly NightRun[], series: readonly Series[]): string {
  const cells = series.flatMap((one) => one.cells);
  const are = (state: Trend['state']): number => cells.filter(({ trend }) => trend.state === state).length;
  const odd = cells.filter(({ nights }) => nights.at(-1)?.standing === 'contradicted').length;
  const when = runs.length > 0 ? `, ${day(runs[0])} to ${day(runs.at(-1))}` : '';
  return `${runs.length} runs${when}: of ${cells.length} cells ${are('new')} new, ${are('fixed')} fixed, ${are('flaky')} flaky; ${odd} not as expected in the last night`;
}

function nightOf(cell: NightCell | null): Night {
  if (cell === null) return { kind: 'unknown', bad: 0, counted: 0, byReading: false };
  const { verdict, bad, counted, byReading } = cell;
  const kind =
    verdict === 'clean' ? 'good' : verdict === 'panics' || verdict === 'exposed' ? 'bad' : 'unknown';
  return { kind, bad, counted, byReading };
}

const isBad = ({ cells }: Series): boolean =>
  cells.some(({ nights }) => nights.at(-1)?.standing === 'contradicted');
const day = (run: NightRun | undefined): string => run?.startedAt.slice(0, 10) ?? '';

/** A name that a file may have, another for each cell. */
function cellPath(series: number, name: string): string {
  const spelled = anchor(name).replace(/^cell-/, '');
  const short =
    spelled.length <= LONGEST_NAME ? spelled : `${spelled.slice(0, LONGEST_NAME)}-${contentKey(name)}`;
  return `cells/${series}-${short}.html`;
}

/** What of a night is looked at before its verdicts are believed. */
function staleInputs(series: readonly Series[], fetchedAt: FetchedAt, now: number): string[] {
  const found: string[] = [];
  for (const { name, runs } of series.filter((one) => one.name.startsWith('matrix '))) {
    const times = runs.map(({ startedAt }) => Date.parse(startedAt));
    const gaps = times.slice(1).map((time, index) => time - (times[index] ?? time));
    const usual = [...gaps].sort((a, b) => a - b)[Math.floor(gaps.length / 2)];
    if (gaps.length < 3 || usual === undefined) continue;
    const often = `usually every ${days(usual)}`;
    const left = gaps.flatMap((gap, index) =>
      gap > LATE * usual && gap > usual + DAY_MS / 2
        ? [`${name}: nothing was run between ${day(runs[index])} and ${day(runs[index + 1])} (${often})`]
        : [],
    );
    found.push(...left.slice(-MOST_GAPS).reverse());
    if (left.length > MOST_GAPS)
      found.push(`${name}: ${left.length - MOST_GAPS} earlier nights were left out, too`);
    const since = now - (times.at(-1) ?? now);
    if (since > LATE * usual && since > usual + DAY_MS / 2)
      found.push(`${name}: nothing was run since ${day(runs.at(-1))}, ${days(since)} ago (${often})`);
  }
  const kernels = new Set(series.flatMap(({ runs }) => runs.at(-1)?.kernels ?? []));
  for (const id of kernels) {
    const at = fetchedAt.get(id);
    if (at !== undefined && now - Date.parse(at) > STALE_DAYS * DAY_MS)
      found.push(
        `kernel ${id}: nobody has looked for a newer package for ${days(now - Date.parse(at))}: 'loopanic kernel fetch ${id}' does`,
      );
  }
  return found;
}

function days(ms: number): string {
  const count = Math.round((ms / DAY_MS) * 10) / 10;
  return count === 1 ? 'day' : `${count} days`;
}

function seriesSection({ name, runs, cells }: Series, index: number): string {
  const from = Math.max(0, runs.length - MOST_COLUMNS);
  // The last night is what people look for.
  const shown = runs.slice(from).reverse();
  const heads = shown.map(
    (run) =>
      `<th scope="col"><a href="../${h(run.run)}/${run.hasReport ? 'report.html' : 'run.json'}" title="${h(run.run)} on ${h(run.host)} (${h(run.accel)})${run.unfinished === null ? '' : `; ${h(run.unfinished)}`}">${h(run.startedAt.slice(5, 10))}</a>${run.unfinished === null ? '' : ' ⚠'}</th>`,
  );
  const rows = cells.map(({ name: cell, nights, trend }) => {
    const tds = shown.map((run, column) => nightTd(nights[runs.length - 1 - column] ?? null, run));
    return `<tr class="${trend.state}"><th scope="row"><a href="${cellPath(index, cell)}">${h(cell)}</a></th><td>${STATE_SIGN[trend.state]}${trend.since !== null && trend.state !== 'steady' ? ` since ${h(day(runs[trend.since]))}` : ''}<br><small>${h(trend.text)}</small></td>${tds.join('')}</tr>`;
  });
  return `<section><h2>${h(name)} <small>${runs.length} nights${from > 0 ? `, the last ${shown.length} here` : ''}, newest first</small></h2>
<div class="scroll" tabindex="0" role="region" aria-label="${h(name)}: nights by cells"><table class="nights"><thead><tr><th scope="col">cell</th><th scope="col">now</th>${heads.join('')}</tr></thead><tbody>${rows.join('')}</tbody></table></div></section>`;
}

function nightTd(cell: NightCell | null, run: NightRun): string {
  if (cell === null) return '<td class="none"><span title="not in this run">·</span></td>';
  const { verdict, standing, change, bad, counted } = cell;
  const sign =
    standing === 'contradicted' ? '‼' : (VERDICT_SIGN[verdict as keyof typeof VERDICT_SIGN] ?? '–');
  const told = `${day(run)}: ${verdict ?? 'not judged'}, ${bad} of ${counted}${standing === 'contradicted' ? ', not as expected' : ''}${change === null ? '' : `; ${change}`}`;
  const heat =
    verdict === 'panics' || verdict === 'exposed'
      ? `h${counted > 0 ? Math.ceil((bad / counted) * 4) : 1}`
      : verdict === 'clean'
        ? 'h0'
        : 'na';
  return `<td class="${heat}${standing === 'contradicted' ? ' contradicted' : ''}"><a href="../${h(run.run)}/${run.hasReport ? `report.html#${h(anchor(cell.reportName))}` : 'run.json'}" title="${h(told)}" aria-label="${h(told)}">${sign}${change === null ? '' : 'Δ'}</a></td>`;
}

function cellPage({ name, runs }: Series, { name: cell, nights, trend }: Series['cells'][number]): string {
  const rows = runs
    .flatMap((run, index) => {
      const night = nights[index];
      if (!night) return [];
      const link = `../../${h(run.run)}/${run.hasReport ? `report.html#${h(anchor(night.reportName))}` : 'run.json'}`;
      const gate =
        night.segments === null
          ? '–'
          : `${night.leaked} of ${Math.max(night.segments, night.leaked ?? 0)} leaked`;
      return [
        `<tr><th scope="row"><a href="${link}">${h(run.startedAt.slice(0, 16).replace('T', ' '))}</a></th><td>${VERDICT_SIGN[night.verdict as keyof typeof VERDICT_SIGN] ?? '–'} ${h(night.verdict ?? 'not judged')}${night.standing === 'contradicted' ? ' ‼' : ''}</td><td>${night.bad} of ${night.counted}</td><td>${h(gate)}</td><td>${night.panicSeconds === null ? '–' : `${night.panicSeconds.toFixed(0)} s`}</td><td>${h(run.host)} (${h(run.accel)})</td><td>${h(night.change ?? '')}</td><td>${h(night.reason)}</td></tr>`,
      ];
    })
    .reverse();
  const body = `<header><h1>${h(cell)} <small>${h(name)}</small></h1>
<p class="summary ${trend.state === 'new' ? 'bad' : 'good'}">${STATE_SIGN[trend.state]}: ${h(trend.text)}</p>
<p><a href="../index.html">all cells</a></p></header><main id="nights">
<section><h2>Signatures</h2>${signatures(runs, nights)}</section>
<section><h2>Nights</h2><div class="scroll" tabindex="0" role="region" aria-label="nights"><table class="trials"><thead><tr><th scope="col">night (UTC)</th><th scope="col">verdict</th><th scope="col">bad boots</th><th scope="col">gate</th><th scope="col">time to panic</th><th scope="col">host</th><th scope="col">against the night before</th><th scope="col">why</th></tr></thead><tbody>${rows.join('')}</tbody></table></div></section></main>`;
  return page(`${cell}: loopanic history`, body);
}

/** Each crash that was seen, first and last. */
function signatures(runs: readonly NightRun[], nights: readonly (NightCell | null)[]): string {
  const seen = new Map<string, { first: number; last: number; nights: number }>();
  for (const [index, night] of nights.entries())
    for (const text of night?.signatures ?? []) {
      const entry = seen.get(text) ?? { first: index, last: index, nights: 0 };
      seen.set(text, { ...entry, last: index, nights: entry.nights + 1 });
    }
  if (seen.size === 0) return '<p>none was seen</p>';
  const rows = [...seen].map(
    ([text, { first, last, nights: count }]) =>
      `<tr><td>${h(text)}</td><td>${h(day(runs[first]))}</td><td>${h(day(runs[last]))}</td><td>${count}</td></tr>`,
  );
  return `<table class="trials"><thead><tr><th scope="col">signature</th><th scope="col">first seen</th><th scope="col">last seen</th><th scope="col">nights</th></tr></thead><tbody>${rows.join('')}</tbody></table>`;
}

const OWN_STYLE = `table.nights { border-spacing: 2px; } table.nights tbody th { position: sticky; left: 0; background: var(--paper); min-width: 9rem; max-width: 16rem; overflow-wrap: anywhere; font-size: .9rem; }
table.nights td { font-size: .85rem; min-width: 1.6rem; } table.nights td:nth-child(2) { min-width: 12rem; } table.nights td[class] { text-align: center; padding: 0; border: 1px solid var(--line); border-radius: 3px; } table.nights td[class] > a { display: block; padding: .3rem .2rem; color: inherit; text-decoration: none; } table.nights td.contradicted > a { color: var(--badink); }
table.nights thead th { white-space: nowrap; font-size: .75rem; } table.nights td.none { border-color: transparent; opacity: .5; }
@media (max-width: 40rem) { table.nights tbody th { position: static; max-width: 9rem; } }`;

function page(title: string, body: string): string {
  return htmlPage(title, { to: 'nights', words: 'Skip to the nights' }, body, OWN_STYLE);
}
