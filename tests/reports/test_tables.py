"""Tables: numbers as in the paper, marks, and text that could break a format."""

import csv
import io
import math
from pathlib import Path

import pytest
from results_folders import D_VGG, DETECTION, PSNR, VERIFICATION, drawn, method, record, write_run

from dfpg_plugin.reports.latex import to_latex
from dfpg_plugin.reports.markdown import to_markdown
from dfpg_plugin.reports.report import Report, build_report
from dfpg_plugin.reports.tables import format_value, missing_lines, provenance_lines, title_of, to_csv


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """Two methods and a reference with an infinite PSNR; labels that are special in every format."""
    good = write_run(tmp_path / "good", {"S": drawn(0, shift=1.0)})
    bad = write_run(tmp_path / "bad", {"S": drawn(0)[:-1]})
    worse = write_run(tmp_path / "worse", {"S": drawn(0, shift=-1.0)})
    sharp = [record(r.index, r.name, values={"psnr": math.inf, "d_vgg": 0.0}) for r in drawn(0)]
    reference = write_run(tmp_path / "sharp", {"S": sharp}, images="sharp")
    methods = [("sharp", reference), ("A_1 & <b>|é", good), ("bad", bad), ("worse", worse)]
    return build_report([method(label, folder) for label, folder in methods], "A title", 200, 0)


@pytest.mark.parametrize(
    ("value", "facts", "text"),
    [
        (29.0649, PSNR, "29.06"),
        (0.93349, {"type": "calculate_ssim_3d"}, "0.933"),
        (0.10249, {"type": "calculate_lpips"}, "0.1025"),
        (0.964, DETECTION, "96.40 %"),
        (1, DETECTION, "100.00 %"),
        (20.9549, D_VGG, "20.95"),
        (1425.03, D_VGG, "1425"),
        (0.75964, D_VGG, "0.7596"),
        (-3.14159, {"type": "of another package"}, "-3.142"),
        (math.nan, PSNR, "–"),  # noqa: RUF001
        (math.inf, PSNR, "∞"),
        (-math.inf, PSNR, "-∞"),
    ],
)
def test_values_look_as_in_the_paper(value: float, facts: dict, text: str) -> None:
    assert format_value(value, facts) == text


def test_headings_name_the_direction_and_the_recogniser() -> None:
    assert title_of("psnr", PSNR) == "psnr ↑"
    assert title_of("d_vgg", D_VGG) == "d_vgg ↓"
    assert title_of("found", DETECTION) == "found ↑ (dlib 20)"


def test_markdown(report: Report) -> None:
    text = to_markdown(report, {"a.png": "A caption"})
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(line.count(" | ") == rows[0].count(" | ") for line in rows[:6])
    good = next(line for line in rows if line.startswith("| A\\_1 & \\<b\\>\\|é |"))
    cells = report.sets[0].cells["psnr"]
    best = cells["A_1 & <b>|é"]
    assert f"**{best.mean:.2f} \\[{best.low:.2f}, {best.high:.2f}\\]**" in good
    assert f"<u>{cells['worse'].mean:.2f}" in text
    assert "(11 of 12) †" in text
    assert "∞" in next(line for line in rows if line.startswith("| sharp |"))
    assert "psnr ↑ by kernel size" in text
    assert "| kernel | 5 px | 9 px |" in text
    assert "bad, S, psnr: not in the results (1): face5\\_k9" in text
    assert "![A caption](a.png)" in text
    assert text.startswith("# A title\n")


def test_latex_is_balanced_and_escaped(report: Report) -> None:
    text = to_latex(report)
    assert r"A\_1 \& \textless{}b\textgreater{}\textbar{}é" in text
    assert r"\multicolumn{2}{c}{S}" in text
    assert r"\cmidrule(lr){2-3}" in text
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 3  # all, and two metrics by size
    best = report.sets[0].cells["psnr"]["A_1 & <b>|é"]
    assert rf"\textbf{{{best.mean:.2f}}}" in text
    assert r"$\dagger$" in text
    for line in text.splitlines():
        if line.endswith(r"\\") and "multicolumn" not in line:
            assert line.replace(r"\&", "").count("&") == 2, line
    assert not set("∞†↑↓") & set(text)
    assert "S, psnr, bad: 11 of 12" in text


def test_csv_holds_every_value(report: Report) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(report))))
    assert len(rows) == 12 + 12 + 11 + 12
    good = {row["image"]: row for row in rows if row["method"].startswith("A_1")}
    for r in drawn(0, shift=1.0):
        assert float(good[r.name]["psnr"]) == r.values["psnr"]
        assert (good[r.name]["kernel_size"], good[r.name]["sharp_face"]) == (str(r.size), r.gt)
    assert {row["psnr"] for row in rows if row["method"] == "sharp"} == {"inf"}


def test_runs_and_their_deviation(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"r{i}", {"S": [record(0, "a", values={"psnr": 20.0 + i})]}) for i in (0, 3)]
    text = to_markdown(build_report([method("m", *runs)], "T", 10, 0), {})
    assert "20.00, 23.00 (sd 2.12)" in text  # 3 / sqrt(2)


def test_what_is_needed_to_understand_the_numbers_is_there(report: Report) -> None:
    text = "\n".join(provenance_lines(report))
    for part in ("crop_border 0", "layer pool5", "weights_sha256 ab", "basicsr test -opt good.yml", "commit abc",
                 "200 resamples", "torch 2", "1.50 M parameters", "images: sharp"):  # fmt: skip
        assert part in text, part
    assert "dlib-bin" not in text  # not installed there
    assert len(missing_lines(report)) == 2


def test_pairs_of_a_verification_are_in_the_csv(tmp_path: Path) -> None:
    pairs = {"v": [("p.png", 0.25, True, 0), ("q.png", None, False, 1)]}
    folder = write_run(tmp_path / "m", {"S": [record(0, "a", pairs=pairs)]}, {"v": VERIFICATION})
    (row,) = csv.DictReader(io.StringIO(to_csv(build_report([method("m", folder)], "T", 10, 0))))
    assert row["v"] == "p.png 0.25 same; q.png  other"
    assert (row["run"], row["name"]) == ("1", "m")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00012, "0.0001200"), (9.99996, "10.00"), (0.012345, "0.01235"), (0.0, "0.000"), (1e-12, "0.00000000")],
)
def test_other_metrics_have_four_digits_that_count(value: float, text: str) -> None:
    assert format_value(value, {"type": "of another package"}) == text


def test_text_that_could_break_a_format(tmp_path: Path) -> None:
    """A row that begins with a bracket would be an argument in LaTeX; a title may hold Markdown's and HTML's marks."""
    runs = [write_run(tmp_path / name, {"S_1 <i>": drawn(0, shift=shift)}) for name, shift in (("a", 0.0), ("b", 1.0))]
    found = build_report([method("[12] net", runs[0]), method("*net", runs[1])], "<b> | *T*", 50, 0)
    latex = to_latex(found)
    assert "\n{}[12] net & " in latex
    assert "\n{}*net & " in latex
    assert "bootstrap intervals over sharp faces" in latex
    markdown = to_markdown(found, {})
    assert markdown.startswith("# \\<b\\> \\| \\*T\\*\n")
    assert "## S\\_1 \\<i\\>: 12 images" in markdown


def test_a_method_without_a_metric_has_a_dash_alone(tmp_path: Path) -> None:
    whole, part = write_run(tmp_path / "w", {"S": drawn(0)}), write_run(tmp_path / "p", {"S": drawn(0)}, {"psnr": PSNR})
    latex = to_latex(build_report([method("whole", whole), method("part", part)], "T", 50, 0))
    assert any(line.startswith("part & ") and line.endswith(r"& -- \\") for line in latex.splitlines())
    assert r"--$\dagger$" not in latex


def test_every_runs_software_is_said(tmp_path: Path) -> None:
    facts = {"software": {"torch": "3"}, "machine": {"device": "GPU", "workers": 1}}
    runs = [write_run(tmp_path / "old", {"S": drawn(0)}), write_run(tmp_path / "new", {"S": drawn(0)}, **facts)]
    lines = provenance_lines(build_report([method("m", *runs)], "T", 50, 0))
    assert "Software of new: torch 3, on GPU" in lines
    assert any(line.startswith("Software of old: ") and line.endswith("on CPU") for line in lines)
