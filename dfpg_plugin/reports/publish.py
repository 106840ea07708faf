"""Write a report into a folder: as JSON, Markdown, LaTeX, CSV and HTML, with pictures."""

import io
import json
import re
from pathlib import Path

from matplotlib.figure import Figure

from dfpg_plugin.checks import UserError, make_folder
from dfpg_plugin.files import read_json, whole_file
from dfpg_plugin.reports.html import to_html
from dfpg_plugin.reports.latex import to_latex
from dfpg_plugin.reports.markdown import to_markdown
from dfpg_plugin.reports.picture_choice import PictureChoice
from dfpg_plugin.reports.plots import choose_images, draw_grid, picture_metric, plot_sizes
from dfpg_plugin.reports.report import Report, as_dict
from dfpg_plugin.reports.tables import to_csv

JSON = "report.json"
LOGS = "logs"  # a study's folder beside its report


def check_target(folder: Path) -> None:
    """Raise UserError unless ``folder`` is missing, is empty, or has an earlier report."""
    if folder.is_file():
        raise UserError(f"--out: {folder} is a file. Name a folder.")
    others = sorted(path.name for path in folder.iterdir() if path.name != LOGS) if folder.is_dir() else []
    if others and JSON not in others:
        raise UserError(f"--out: {folder} holds {others[0]} and no report. Name another folder.")


def publish(report: Report, folder: Path, choice: PictureChoice) -> list[Path]:
    """Write report.json, .md, .tex, .csv and .html and the pictures. Return their paths.

    The files of an earlier report are replaced or removed. Raises UserError if :func:`check_target` refuses the folder,
    or if no set has the chosen metric.
    """
    check_target(folder)
    make_folder("--out", folder)
    figures = _figures(report, choice)
    captions = {file: caption for file, (caption, _) in figures.items()}
    contents = {file: _png(figure) for file, (_, figure) in figures.items()}
    pages = {
        "report.md": to_markdown(report, captions),
        "report.tex": to_latex(report),
        "report.csv": to_csv(report),
        "report.html": to_html(report, {captions[file]: content for file, content in contents.items()}),
    }
    facts = {**as_dict(report), "files": sorted([*figures, *pages, JSON])}
    pages[JSON] = json.dumps(facts, indent=1, allow_nan=False) + "\n"
    earlier_files = read_json(folder / JSON).get("files", []) if (folder / JSON).exists() else []
    contents |= {file: text.encode("utf-8", "surrogateescape") for file, text in pages.items()}
    # an earlier report with more metrics, for example, has more pictures
    for file in {Path(str(name)).name for name in earlier_files} - contents.keys():
        _remove(folder / file)
    for file, content in contents.items():
        with whole_file(folder / file) as output:
            output.write(content)
    return [folder / file for file in contents]


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{file}: of an earlier report, can't be removed ({error.strerror}). Remove it.") from error


def _figures(report: Report, choice: PictureChoice) -> dict[str, tuple[str, Figure]]:
    """Return a caption and a figure for each file name."""
    figures = {}
    for number, test_set in enumerate(report.sets, 1):
        for metric in test_set.cells if len(test_set.sizes) > 1 else ():
            caption = f"{test_set.name}: {metric} by kernel size, with 95 % intervals"
            file = re.sub(r"[^\w.-]", "_", metric)
            figures[f"set{number}_{file}.png"] = (caption, plot_sizes(report, test_set, metric))
        names = choose_images(report, test_set, choice)
        shown = picture_metric(report, test_set, choice)
        caption = f"{test_set.name}: {choice.kind} images" + (f"; below each its {shown}" if shown else "")
        figures[f"set{number}_pictures.png"] = (caption, draw_grid(report, test_set, names, shown))
    return figures


def _png(figure: Figure) -> bytes:
    output = io.BytesIO()
    figure.savefig(output, format="png")
    return output.getvalue()
