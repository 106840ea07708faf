"""Write a report as one HTML page. The page loads no script, font or picture from elsewhere."""

import base64
from collections.abc import Mapping

from jinja2 import Environment, PackageLoader

from dfpg_plugin.reports.report import Report
from dfpg_plugin.reports.tables import missing_lines, provenance_lines, tables_of

TEMPLATE = "report.html.j2"


def to_html(report: Report, pictures: Mapping[str, bytes]) -> str:
    """Return the page. ``pictures``: the content of each PNG file, by caption."""
    encoded = []
    for caption, content in pictures.items():
        encoded.append({"caption": caption, "content": base64.b64encode(content).decode()})
    environment = Environment(loader=PackageLoader("dfpg_plugin", "reports"), autoescape=True)
    return environment.get_template(TEMPLATE).render(
        report=report,
        sets=list(tables_of(report)),
        pictures=encoded,
        missing=missing_lines(report),
        provenance=provenance_lines(report),
    )
