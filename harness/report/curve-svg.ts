import { scaleLinear } from 'd3-scale';
import { curveStepAfter, line } from 'd3-shape';
import type { SurvivalCurve, SurvivalStep } from './survival.js';

const SIZE = { width: 640, height: 240, left: 48, right: 12, top: 12, bottom: 40 };
/** Told apart without colour. */
const DASHES = ['none', '7 3', '2 3', '9 3 2 3', '12 4', '4 6'];

/**
 * Survival curves as one SVG: share of boots that have not panicked over seconds since QEMU's start. Ticks are boots that were looked at
 * no longer. The legend is the page's: curveSwatch.
 */
export function curveSvg(curves: { name: string; curve: SurvivalCurve }[], label: string): string {
  const { width, height, left, right, top, bottom } = SIZE;
  const ends = curves.flatMap(({ curve }) =>
    [...curve.steps, ...curve.censored].map(({ seconds }) => seconds),
  );
  const longest = Math.max(1, ...ends);
  const x = scaleLinear()
    .domain([0, longest])
    .nice()
    .range([left, width - right]);
  const y = scaleLinear()
    .domain([0, 1])
    .range([height - bottom, top]);
  const path = line<SurvivalStep>()
    .x(({ seconds }) => x(seconds))
    .y(({ share }) => y(share))
    .curve(curveStepAfter);
  const parts: string[] = [];
  for (const tick of x.ticks(6))
    parts.push(
      `<line class="grid" x1="${x(tick)}" x2="${x(tick)}" y1="${top}" y2="${height - bottom}"/><text x="${x(tick)}" y="${height - bottom + 16}" text-anchor="middle">${tick}</text>`,
    );
  for (const tick of [0, 0.5, 1])
    parts.push(
      `<line class="grid" x1="${left}" x2="${width - right}" y1="${y(tick)}" y2="${y(tick)}"/><text x="${left - 6}" y="${y(tick) + 4}" text-anchor="end">${tick * 100} %</text>`,
    );
  parts.push(
    `<text x="${(left + width - right) / 2}" y="${height - 6}" text-anchor="middle">seconds since QEMU's start</text>`,
  );
  for (const [index, { curve }] of curves.entries()) {
    const end = Math.max(...[...curve.steps, ...curve.censored].map(({ seconds }) => seconds));
    const last = curve.steps.at(-1)?.share ?? 1;
    const dash = DASHES[index % DASHES.length];
    parts.push(
      `<path class="curve c${index % 6}" stroke-dasharray="${dash}" d="${path([...curve.steps, { seconds: end, share: last }])}"/>`,
    );
    for (const { seconds, share } of curve.censored)
      parts.push(
        `<line class="curve c${index % 6}" x1="${x(seconds)}" x2="${x(seconds)}" y1="${y(share) - 4}" y2="${y(share) + 4}"/>`,
      );
  }
  return `<svg class="plot" viewBox="0 0 ${width} ${height}" role="img" aria-label="${label}">${parts.join('')}</svg>`;
}

/** A piece of the line that curve `index` is drawn with. */
export function curveSwatch(index: number): string {
  const dash = DASHES[index % DASHES.length];
  return `<svg class="swatch" viewBox="0 0 40 8" aria-hidden="true"><line class="curve c${index % 6}" stroke-dasharray="${dash}" x1="0" x2="40" y1="4" y2="4"/></svg>`;
}
