"""A report as one HTML page that needs nothing else: no script, no font, no picture from outside."""

import base64
from collections.abc import Mapping

from jinja2 import Environment

from dfpg_plugin.reports.report import Report
from dfpg_plugin.reports.tables import missing_lines, provenance_lines, tables_of

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ report.title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; }
table { border-collapse: collapse; margin: 0.5rem 0 1.5rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: 0.3rem 0; }
th, td { padding: 0.25rem 0.7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #ddd; }
th { border-bottom: 2px solid #222; }
th:first-child, td:first-child { text-align: left; }
.first { font-weight: 700; }
.second { text-decoration: underline; }
.wide { overflow-x: auto; }
img { max-width: 100%; }
figure { margin: 1rem 0; break-inside: avoid; }
figcaption, .notes { color: #555; font-size: 0.9em; overflow-wrap: anywhere; }
@media print { body { margin: 0; max-width: none; } details[open] summary { display: none; } }
</style>
</head>
<body>
<h1>{{ report.title }}</h1>
{% for set, tables in sets %}
<h2>{{ set.name }}</h2>
<p>{{ set.images | length }} images of {{ set.faces }} faces.</p>
{% for table in tables %}
<div class="wide"><table>
{% if table.caption %}<caption>{{ table.caption }}</caption>{% endif %}
<thead><tr>{% for text in table.header %}<th>{{ text }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}<tr>{% set marks = table.marks[loop.index0] %}{% for text in row -%}
<td{{ {1: ' class=first', 2: ' class=second'}.get(marks[loop.index0], '') }}>{{ text }}</td>
{%- endfor %}</tr>
{% endfor %}</tbody></table></div>
{% endfor %}{% endfor %}
{% for picture in pictures %}
<figure><img src="data:image/png;base64,{{ picture.content }}" alt="{{ picture.caption }}">
<figcaption>{{ picture.caption }}</figcaption></figure>
{% endfor %}
<h2>Missing pieces</h2>
{% if missing %}<details open><summary>{{ missing | length }} entries</summary><ul class="notes">
{% for line in missing %}<li>{{ line }}</li>
{% endfor %}</ul></details>{% else %}<p>None.</p>{% endif %}
<h2>What these numbers are</h2>
<ul class="notes">
{% for line in provenance %}<li>{{ line }}</li>
{% endfor %}</ul>
</body>
</html>
"""


def to_html(report: Report, pictures: Mapping[str, bytes]) -> str:
    """Return the page. ``pictures``: PNG files by caption."""
    encoded = [{"caption": k, "content": base64.b64encode(content).decode()} for k, content in pictures.items()]
    return (
        Environment(autoescape=True)
        .from_string(PAGE)
        .render(
            report=report,
            sets=list(tables_of(report)),
            pictures=encoded,
            missing=missing_lines(report),
            provenance=provenance_lines(report),
        )
    )
