"""How the page looks: one column, the colours of the plots in light and in dark, and on paper."""

from typing import Final

CSS: Final = """\
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1b1f24; --muted: #5c636a; --faint: #d3d7dc; --raised: #f4f6f8;
  --link: #00598a; --good: #006b4e; --bad: #a83c00;
  --blue: #0072b2; --vermillion: #c25400; --green: #008060; --purple: #a8487d; --orange: #b87800; --sky: #2583b8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --ink: #e6e8ea; --muted: #a3abb3; --faint: #3a4047; --raised: #1e2226;
    --link: #6fc3f2; --good: #4cc9a0; --bad: #ff9a5c;
    --blue: #58aee6; --vermillion: #f5853d; --green: #3cc29a; --purple: #dd95bb; --orange: #eab03a; --sky: #7cc9f2;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 54rem;
  background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; overflow-wrap: anywhere;
}
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .6rem; }
h2 { font-size: 1.2rem; line-height: 1.3; margin: 2.4rem 0 .7rem; }
.kind { margin: 0; color: var(--muted); }
.verdict { display: inline-block; margin: 0; padding: .35rem .8rem; border: 2px solid; border-radius: .4rem;
  font-weight: 600; }
.passed { color: var(--good); }
.failed { color: var(--bad); }
.skip { position: absolute; left: -100rem; }
.skip:focus { position: static; color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .94rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--faint); }
th { color: var(--muted); font-weight: 600; }
td:first-child { white-space: nowrap; }
td { min-width: 5.5rem; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: .6rem; margin: 0; }
dl div { background: var(--raised); border-radius: .4rem; padding: .55rem .8rem; }
dt { color: var(--muted); font-size: .88rem; }
dd { margin: 0; font-weight: 600; }
figure { margin: 0; }
figure svg { display: block; width: 100%; height: auto; min-width: 34rem; }
figcaption { margin-top: .4rem; color: var(--muted); }
pre { background: var(--raised); border-radius: .4rem; padding: .7rem .9rem; overflow-x: auto; }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .92em; }
footer { margin-top: 3rem; border-top: 1px solid var(--faint); color: var(--muted); font-size: .9rem; }
@media print {
  :root {
    color-scheme: light;
    --paper: #ffffff; --ink: #000000; --muted: #444444; --faint: #c9cdd2; --raised: #ffffff;
    --good: #005a40; --bad: #8f3300;
    --blue: #0072b2; --vermillion: #c25400; --green: #008060; --purple: #a8487d; --orange: #b87800; --sky: #2583b8;
  }
  body { max-width: none; padding: 0; font-size: 10pt; }
  .skip { display: none; }
  .scroll { overflow: visible; }
  figure svg { min-width: 0; }
  dl div { border: 1px solid var(--faint); }
  figure, tr, dl div { break-inside: avoid; }
  h2 { break-after: avoid; }
}
"""
