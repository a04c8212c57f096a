/** Of the HTML report. Verdicts are told by sign and word; colour only helps. */
export const STYLE = `
:root { --ink: #1c1f23; --paper: #fff; --soft: #f1f3f5; --line: #c4cad0; --link: #0b57a4; --mark: #ffe08a; --markink: #1c1f23;
  --h0: #dff0e4; --h1: #fdebd9; --h2: #f9d3b4; --h3: #f2b08c; --h4: #eb9a80; --na: #e9ecef; --bad: #a11212; --badink: #fff;
  --c0: #1f6fb2; --c1: #b3541e; --c2: #2f7d4f; --c3: #7b4fa3; --c4: #8a6d00; --c5: #a3325f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaed; --paper: #15181b; --soft: #20252a; --line: #454d55; --link: #8ec1f5; --mark: #6b5200; --markink: #fff4d0;
  --h0: #1d3a28; --h1: #4a3420; --h2: #5c3a20; --h3: #713d24; --h4: #87402a; --na: #2b3138; --bad: #d13c3c; --badink: #fff;
  --c0: #6fb3ea; --c1: #f0a070; --c2: #7fcf9c; --c3: #c5a3e6; --c4: #dcc05a; --c5: #ee8fb4; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
code { overflow-wrap: anywhere; } th, td { overflow-wrap: normal; } table.trials td:nth-child(3) { min-width: 16rem; }
h1, h2, h3 { line-height: 1.2; } h1 small, h3 small, caption small { font-weight: normal; opacity: .8; }
a { color: var(--link); } a:focus-visible, summary:focus-visible, [tabindex]:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -99rem; } .skip:focus { left: 1rem; top: 1rem; background: var(--paper); padding: .5rem; }
.summary { font-size: 1.2rem; font-weight: 600; border-left: .5rem solid var(--line); padding: .25rem .75rem; background: var(--soft); }
.summary.bad { border-left-color: var(--c1); } .summary.good { border-left-color: var(--c2); }
.legend span { margin-right: 1rem; display: inline-block; }
.scroll { overflow-x: auto; } table { border-collapse: separate; border-spacing: 4px; } caption { text-align: left; font-weight: 600; padding: .5rem 0; }
th { text-align: left; font-weight: 600; padding: .25rem .5rem; } thead th { font-size: .85rem; vertical-align: bottom; }
td { padding: .25rem .5rem; vertical-align: top; } tbody td.clean, tbody td.panics, tbody td.exposed, tbody td.inconclusive, tbody td.void, tbody td.pending { border: 1px solid var(--line); border-radius: 4px; min-width: 7rem; padding: 0; font-size: .9rem; }
table.heat td > a { display: block; padding: .4rem .5rem; color: inherit; text-decoration: none; } table.heat td > a:hover { text-decoration: underline; }
table.heat thead th { white-space: nowrap; } table.heat tbody th { min-width: 8rem; max-width: 18rem; overflow-wrap: anywhere; }
td.h0 { background: var(--h0); } td.h1 { background: var(--h1); } td.h2 { background: var(--h2); } td.h3 { background: var(--h3); } td.h4 { background: var(--h4); } td.na { background: var(--na); }
td.inconclusive, td.void, td.pending { background: repeating-linear-gradient(45deg, var(--na) 0 6px, var(--paper) 6px 9px) !important; }
td.contradicted { border: 4px solid var(--ink) !important; background: var(--bad) !important; color: var(--badink); font-weight: 700; }
.sign { font-weight: 700; font-size: 1.1rem; }
article { border-top: 1px solid var(--line); padding: .5rem 0; scroll-margin-top: 1rem; } article.contradicted { border-left: .5rem solid var(--c1); padding-left: .75rem; }
article.undecided { border-left: .5rem dashed var(--line); padding-left: .75rem; }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) minmax(0, 1fr); gap: .25rem 1rem; } dt { font-weight: 600; } dd { margin: 0; }
table.trials { border-spacing: 0; font-size: .9rem; } table.trials td, table.trials th { border-bottom: 1px solid var(--line); }
pre { background: var(--soft); padding: .75rem; overflow-x: auto; font-size: .8rem; line-height: 1.4; } mark { background: var(--mark); color: var(--markink); font-weight: 700; }
.warning { background: var(--soft); border-left: .5rem solid var(--c4); padding: .25rem .75rem; }
svg.plot { width: 100%; min-width: 32rem; max-width: 56rem; height: auto; font: 11px system-ui, sans-serif; } svg.swatch { width: 2.5rem; height: .5rem; vertical-align: middle; }
ul.curves { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; } svg text { fill: var(--ink); } svg .grid { stroke: var(--line); stroke-width: .5; } svg .curve { fill: none; stroke-width: 2; }
${[0, 1, 2, 3, 4, 5].map((index) => `svg .c${index} { stroke: var(--c${index}); }`).join(' ')}
@media (max-width: 40rem) { body { padding: .5rem; } dl { grid-template-columns: minmax(0, 1fr); } }
@media print { .skip, article > p:last-child { display: none; } .scroll { overflow: visible; } table.heat td, table.heat th { min-width: 0 !important; font-size: .75rem; white-space: normal; } article, tr, svg { break-inside: avoid; } pre { white-space: pre-wrap; } }
`;
