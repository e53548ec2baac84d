"""The frame of the report's page: its style, for light and dark screens."""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root { --ground: #fff; --ink: #1d2129; --dim: #667085; --line: #e1e4ea; --card: #f6f7f9;
  --error: #c4232f; --warning: #a15c00; --note: #2b66b1; --clean: #17753a;
  --first: #2f6fd0; --second: #e07a1f; --third: #2a9d6f; }
@media (prefers-color-scheme: dark) { :root { --ground: #14161a; --ink: #e4e7ec; --dim: #98a2b3; --line: #2c313a;
  --card: #1c2026;
  --error: #ff7a80; --warning: #f2b04c; --note: #7db3f5; --clean: #5fd08c;
  --first: #6aa3f5; --second: #f2a35c; --third: #5fcf9f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 24px; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { margin: 0; font-size: 26px; } h2 { margin: 36px 0 12px; font-size: 20px; } h3 { margin: 0 0 4px; font-size: 16px; }
h4 { margin: 0 0 6px; font-size: 14px; font-weight: 600; }
p { margin: 4px 0 8px; max-width: 75ch; } a { color: inherit; text-decoration: none; }
code, pre { font: 13px ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
h3 code { color: var(--dim); font-weight: 400; }
pre { margin: 6px 0 0; padding: 8px 10px; overflow-x: auto; background: var(--ground); border: 1px solid var(--line);
  border-radius: 6px; }
.dim, figcaption span { color: var(--dim); } .notes { color: var(--dim); padding-left: 20px; }
.verdict { font-size: 17px; font-weight: 600; margin: 6px 0 12px; }
.verdict.error { color: var(--error); } .verdict.warning { color: var(--warning); }
.verdict.clean { color: var(--clean); }
nav { display: flex; flex-wrap: wrap; gap: 6px; margin-bottom: 20px; }
.chip { display: inline-block; border: 1px solid currentColor; border-radius: 999px; padding: 1px 10px;
  font-size: 13px; }
h3 .chip { font-size: 12px; font-weight: 600; }
.chip.error { color: var(--error); } .chip.warning { color: var(--warning); } .chip.note { color: var(--note); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px;
  margin-bottom: 14px; }
.scroll { overflow-x: auto; } details .scroll { max-height: 420px; overflow-y: auto; }
summary { cursor: pointer; color: var(--dim); margin: 6px 0; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--dim); font-weight: 500; } th, td { padding: 4px 14px 4px 0; vertical-align: top; }
tbody tr { border-top: 1px solid var(--line); } table.findings { width: 100%; table-layout: fixed; }
table.findings th:first-child { width: 70px; }
table.findings td { overflow-wrap: anywhere; } table.findings td:first-child { white-space: nowrap; }
table.splits { font-size: 14px; }
.gallery { display: flex; flex-wrap: wrap; gap: 12px; margin: 10px 0; }
figure { margin: 0; max-width: 460px; } figure div { display: flex; gap: 4px; align-items: flex-start; }
figure img { display: block; border-radius: 4px; max-width: 100%; }
figcaption { font-size: 12px; line-height: 1.35; margin-top: 4px; overflow-wrap: anywhere; max-width: 300px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 20px; align-items: start; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--dim); font-size: 11px; }
svg line { stroke: var(--dim); } svg line.grid { stroke: var(--line); } svg line.axis { stroke: var(--dim); }
.legend { display: flex; gap: 16px; font-size: 13px; } .legend i { display: inline-block; width: 10px; height: 10px;
  border-radius: 2px; margin-right: 6px; }
.charts .scroll { max-height: 420px; overflow-y: auto; }
table.classes { width: 100%; } table.classes td { padding: 2px 8px 2px 0; white-space: nowrap; }
table.classes td.bars { width: 100%; vertical-align: middle; } table.classes tr { border: 0; }
td.bars div { height: 7px; min-width: 1px; border-radius: 2px; margin: 1px 0; } tr.none td { color: var(--error); }
td.gap { color: var(--dim); text-align: center; }
</style>
</head>
<body>
{body}
</body>
</html>
"""
