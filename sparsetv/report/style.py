"""How the page looks: on a phone, on a desk, on paper, by day and by night."""

STYLE = """
:root { color-scheme: light dark; --text: #1d232b; --quiet: #5a6370; --line: #d9dde2; --band: #f4f6f8; --page: #fff;
  --accent: #2f7fc1; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e9ed; --quiet: #a3acb8; --line: #39414b; --band: #1d232b; --page: #14181d; --accent: #6fb1ea; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0.5rem 0; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 0.5rem; padding-top: 0.5rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.5rem 0 0.25rem; }
p { margin: 0.5rem 0; max-width: 46rem; }
a { color: var(--accent); }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1rem; list-style: none; padding: 0; margin: 1rem 0; }
.caption, figcaption, dd { color: var(--quiet); }
.glance { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: 0.75rem; margin: 1rem 0; }
.glance div { background: var(--band); border-radius: 0.5rem; padding: 0.75rem 1rem; }
.glance b { display: block; font-size: 1.35rem; }
.glance span { color: var(--quiet); font-size: 0.9rem; }
.table { margin: 1.25rem 0; }
.caption { font-size: 0.9rem; margin: 0 0 0.25rem; }
.scroll { overflow-x: auto; }
table { border-collapse: separate; border-spacing: 0; width: max-content; font-size: 0.875rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; }
thead th { vertical-align: bottom; border-bottom: 2px solid var(--line); }
tbody th { font-weight: 400; max-width: 18rem; }
th:first-child { position: sticky; left: 0; background: var(--page); }
td.word { max-width: 24rem; }
.word { text-align: left; }
.number { text-align: right; white-space: nowrap; }
thead .number { white-space: normal; }
@media (max-width: 40rem) {
  tbody th { max-width: 9.5rem; }
  td.word { max-width: 11rem; }
  th, td { padding: 0.3rem 0.4rem; }
}
figure { margin: 1rem 0; break-inside: avoid; }
figure svg { display: block; width: 100%; min-width: 20rem; max-width: 32rem; height: auto; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figure svg text { font-family: inherit !important; }
figcaption { font-size: 0.9rem; max-width: 46rem; }
dt { font-weight: 600; margin-top: 0.5rem; }
dd { margin: 0; max-width: 46rem; }
code { overflow-wrap: anywhere; }
@media print {
  :root { --text: #000; --quiet: #444; --line: #bbb; --band: #f2f2f2; --page: #fff; --accent: #000; }
  @page { margin: 14mm; }
  html { font-size: 9.5pt; }
  body { max-width: none; padding: 0; }
  nav { display: none; }
  .scroll { overflow: visible; }
  .glance { grid-template-columns: repeat(4, 1fr); }
  table { font-size: 6.5pt; width: auto; max-width: 100%; }
  th, td { padding: 0.15rem 0.2rem; }
  th:first-child { position: static; }
  .number { white-space: normal; }
  tr, .glance div { break-inside: avoid; }
  thead { display: table-header-group; }
  h2, h3, .caption { break-after: avoid; }
  figure svg { max-width: 120mm; }
}
"""
