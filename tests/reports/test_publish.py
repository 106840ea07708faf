"""The folder that a report becomes: files, pictures, the page, and what is refused."""

import base64
import html.parser
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from kit import fail_at
from matplotlib.figure import Figure
from results_folders import DETECTION, PSNR, VERIFICATION, drawn, method, record, write_run

from dfpg_plugin.checks import UserError
from dfpg_plugin.reports import publish as publishing
from dfpg_plugin.reports.picture_choice import PictureChoice
from dfpg_plugin.reports.plots import choose_images, draw_grid, picture_metric, plot_sizes
from dfpg_plugin.reports.publish import check_target, publish
from dfpg_plugin.reports.report import Report, build_report


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """A method with saved pictures, one without, and the blurred set; the sharp faces are files."""
    cv2.imwrite(str(tmp_path / "gt.png"), np.full((8, 8, 3), (255, 0, 0), np.uint8))  # blue

    def with_pictures(name: str, level: int | None) -> Path:
        records = []
        for r in drawn(0):
            picture = None if level is None else f"{r.name}.png"
            facts = {"values": r.values, "gt_path": str(tmp_path / "gt.png"), "picture": picture}
            records.append(record(r.index, r.name, **facts))
        folder = write_run(tmp_path / name, {"S": records}, images="blurred" if name == "blurred" else "restored")
        for r in records if level is not None else ():
            cv2.imwrite(str(folder / r.picture), np.full((8, 8, 3), level, np.uint8))
        return folder

    runs = [method(name, with_pictures(name, level)) for name, level in (("blurred", 10), ("net", 200), ("bare", None))]
    return build_report(runs, "<b>T</b>", 100, 0)


def test_all_forms_are_written_and_written_again(tmp_path: Path, report: Report) -> None:
    paths = publish(report, tmp_path / "out", PictureChoice(count=2))
    names = {"report.json", "report.md", "report.tex", "report.csv", "report.html"}
    names |= {"set1_psnr.png", "set1_d_vgg.png", "set1_pictures.png"}
    assert {path.name for path in paths} == {path.name for path in (tmp_path / "out").iterdir()} == names
    assert json.loads((tmp_path / "out" / "report.json").read_text())["title"] == "<b>T</b>"
    before = (tmp_path / "out" / "report.md").read_bytes()
    (tmp_path / "out" / "mine.txt").touch()
    names_before = json.loads((tmp_path / "out" / "report.json").read_text())
    names_before["files"].append("set2_old.png")
    (tmp_path / "out" / "report.json").write_text(json.dumps(names_before))
    (tmp_path / "out" / "set2_old.png").touch()
    publish(report, tmp_path / "out", PictureChoice(count=2))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*names, "mine.txt"}
    assert (tmp_path / "out" / "report.md").read_bytes() == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    with pytest.raises(UserError, match=r"--out: .*other holds mine\.txt and no report"):
        check_target(tmp_path / "other")
    with pytest.raises(UserError, match="is a file"):
        check_target(tmp_path / "other" / "mine.txt")
    (tmp_path / "study" / "logs").mkdir(parents=True)
    check_target(tmp_path / "study")


@pytest.mark.parametrize("number", [0, 1, 3, 5])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_whichever_file_fails_each_is_the_earlier_or_the_later_one(
    tmp_path: Path, report: Report, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(publishing, "_figures", lambda *_: {"set1_pictures.png": ("faces", Figure(figsize=(1, 1)))})
    found = []
    for title in ("Later", "Earlier"):
        publish(replace(report, title=title), out, PictureChoice())
        found.append({path.name: path.read_bytes() for path in out.iterdir()})
    later, earlier = found
    fail_at(monkeypatch, step, number)
    with pytest.raises(UserError, match=rf"^{out}/[^\n]*can't be written [^\n]*No space[^\n]*$"):
        publish(replace(report, title="Later"), out, PictureChoice())
    assert {path.name for path in out.iterdir()} == set(later)
    written = [name for name in later if (out / name).read_bytes() == later[name] != earlier[name]]
    assert all((out / name).read_bytes() in (earlier[name], later[name]) for name in later)
    assert bool(written) == (number > 1)  # of the first, the picture, both are equal
    assert (out / "report.json").read_bytes() == earlier["report.json"]  # which is the last


def test_a_picture_of_an_earlier_report_that_can_not_be_removed_is_named(
    tmp_path: Path, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(publishing, "_figures", lambda *_: {})
    publish(report, out, PictureChoice())
    facts = json.loads((out / "report.json").read_text())
    (out / "report.json").write_text(json.dumps({**facts, "files": ["old.png"]}))
    (out / "old.png").mkdir()
    with pytest.raises(UserError, match=rf"^{out}/old\.png: of an earlier report, can't be removed \(.*\)\. Remove it"):
        publish(report, out, PictureChoice())


class Links(html.parser.HTMLParser):
    """Collect what a page loads, and what it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.loaded += [value for key, value in attrs if key in ("src", "href") and value]


def test_the_page_needs_nothing_else(tmp_path: Path, report: Report) -> None:
    publish(report, tmp_path / "out", PictureChoice(count=2))
    text = (tmp_path / "out" / "report.html").read_text()
    page = Links()
    page.feed(text)
    assert len(page.loaded) == 3
    for source in page.loaded:
        kind, content = source.split(",", 1)
        assert kind == "data:image/png;base64"
        assert base64.b64decode(content).startswith(b"\x89PNG")
    assert not {"script", "link", "b"} & set(page.tags)
    assert "&lt;b&gt;T&lt;/b&gt;" in text
    assert "url(" not in text
    cells = report.sets[0].cells["psnr"]
    assert len(re.findall(r"<td class=first>", text)) >= 2
    assert f"{cells['net'].mean:.2f}" in text


def panels(report: Report) -> dict[str, list]:
    figure = draw_grid(report, report.sets[0], ["face0_k5", "face1_k9"], "psnr")
    return {axes.get_title(): axes for axes in figure.axes[:4]}


def test_the_grid_shows_blurred_methods_and_sharp(report: Report) -> None:
    first = panels(report)
    assert list(first) == ["blurred", "net", "bare", "sharp"]
    assert first["blurred"].images[0].get_array().max() == 10
    assert first["net"].images[0].get_array().max() == 200
    assert list(first["bare"].images) == []
    assert first["bare"].texts[0].get_text() == "not saved"
    assert first["sharp"].images[0].get_array()[0, 0].tolist() == [0, 0, 255]  # RGB
    value = next(r.values["psnr"] for r in drawn(0) if r.name == "face0_k5")
    assert first["net"].get_xlabel() == f"{value:.2f}"


def test_images_are_chosen_by_seed_or_by_value(report: Report) -> None:
    test_set = report.sets[0]
    by_value = sorted(drawn(0), key=lambda r: r.values["psnr"])
    names = [r.name for r in by_value]
    assert choose_images(report, test_set, PictureChoice("worst", 3)) == names[:3]
    assert choose_images(report, test_set, PictureChoice("best", 2)) == names[-2:]
    assert choose_images(report, test_set, PictureChoice("median", 2)) == names[5:7]
    far = sorted(drawn(0), key=lambda r: -r.values["d_vgg"])
    assert choose_images(report, test_set, PictureChoice("worst", 1, "d_vgg")) == [far[0].name]
    drawn_twice = [choose_images(report, test_set, PictureChoice("random", 4, seed=7)) for _ in range(2)]
    assert drawn_twice[0] == drawn_twice[1] != choose_images(report, test_set, PictureChoice("random", 4, seed=8))
    assert len(choose_images(report, test_set, PictureChoice("random", 99))) == 12
    with pytest.raises(UserError, match=r"--picture-metric: 'psnrr' is not one of psnr, d_vgg\. Did you mean psnr"):
        choose_images(report, test_set, PictureChoice("worst", 3, "psnrr"))


def test_the_plot_shows_means_and_intervals(report: Report) -> None:
    figure = plot_sizes(report, report.sets[0], "psnr")
    (axes,) = figure.axes
    assert axes.get_legend_handles_labels()[1] == ["blurred", "net", "bare"]
    line = axes.containers[1].lines[0]
    means = [cells["psnr"]["net"].mean for cells in report.sets[0].sizes.values()]
    assert line.get_ydata() == pytest.approx(means)
    assert axes.get_ylabel() == "psnr ↑"
    cells = [cells["psnr"]["net"] for cells in report.sets[0].sizes.values()]
    bars = axes.containers[1].lines[2][0].get_segments()
    assert [ends.tolist()[0][1] for ends in bars] == pytest.approx([cell.low for cell in cells])
    assert [ends.tolist()[1][1] for ends in bars] == pytest.approx([cell.high for cell in cells])


def test_the_plot_shows_rates_in_percent(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"face{i}_k{size}" for i in range(12) for size in (5, 9)]
    records = [record(i, name, values={"found": float(rng.random() < 0.7)}) for i, name in enumerate(names)]
    folder = write_run(tmp_path / "run", {"S": records}, {"found": DETECTION})
    report = build_report([method("net", folder)], "T", 100, 0)
    (axes,) = plot_sizes(report, report.sets[0], "found").axes
    cells = [cells["found"]["net"] for cells in report.sets[0].sizes.values()]
    assert axes.containers[0].lines[0].get_ydata() == pytest.approx([100 * cell.mean for cell in cells])
    ends = [segment[:, 1].tolist() for segment in axes.containers[0].lines[2][0].get_segments()]
    assert ends == [pytest.approx([100 * cell.low, 100 * cell.high]) for cell in cells]
    assert axes.get_ylabel().endswith(" in %")


def test_sets_without_the_metric_to_choose_by_show_drawn_images(tmp_path: Path) -> None:
    """The first method was not measured on T, and verification has no values of images."""
    first = write_run(tmp_path / "first", {"S": drawn(0)})
    second = write_run(tmp_path / "second", {"S": drawn(0), "T": drawn(1)})
    found = build_report([method("first", first), method("second", second)], "T", 50, 0)
    assert len(choose_images(found, found.sets[1], PictureChoice("worst", 3))) == 3
    pairs = {"v": [("p", 0.1, True, 0), ("q", 0.9, False, 1)]}
    records = [record(i, f"f{i}", pairs=pairs) for i in range(20)]
    run = write_run(tmp_path / "faces", {"S": records}, {"v/1": VERIFICATION, "v": VERIFICATION})
    only_faces = build_report([method("m", run)], "T", 50, 0)
    assert picture_metric(only_faces, only_faces.sets[0], PictureChoice("worst")) is None
    publish(only_faces, tmp_path / "out", PictureChoice("worst", 2))


def test_a_metrics_name_may_hold_a_slash(tmp_path: Path) -> None:
    records = [record(r.index, r.name, values={"lpips/vgg": 0.5}) for r in drawn(0)]
    run = write_run(tmp_path / "m", {"S": records}, {"lpips/vgg": PSNR})
    publish(build_report([method("m", run)], "T", 50, 0), tmp_path / "out", PictureChoice())
    assert (tmp_path / "out" / "set1_lpips_vgg.png").is_file()


def test_a_wrong_metric_is_said_of_drawn_images_too(report: Report) -> None:
    with pytest.raises(UserError, match=r"--picture-metric: 'psnrr' is not one of psnr"):
        choose_images(report, report.sets[0], PictureChoice("random", 3, "psnrr"))


@pytest.mark.parametrize("label", ["a $\\foo$", "_hidden", os.fsdecode(b"a\xff")])
def test_text_that_matplotlib_would_read_as_something_else(tmp_path: Path, label: str) -> None:
    records = [record(r.index, f"{label}_{r.name}", values=r.values) for r in drawn(0)]
    run = write_run(tmp_path / "run", {"S": records})
    found = build_report([method(label, run)], "T", 50, 0)
    publish(found, tmp_path / "out", PictureChoice(count=1))
    assert len(plot_sizes(found, found.sets[0], "psnr").legends[0].get_texts()) == 1


def test_pictures_keep_their_pixels(tmp_path: Path) -> None:
    """A small picture's pixels become equal squares; of a large one the centre is shown as it is."""
    small = np.random.default_rng(0).integers(0, 256, (100, 80, 3), np.uint8)
    large = np.random.default_rng(1).integers(0, 256, (300, 400, 3), np.uint8)
    for name, image in (("small", small), ("large", large)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    paths = {f"{kind}_path": str(tmp_path / f"{name}.png") for kind, name in (("lq", "small"), ("gt", "large"))}
    run = write_run(tmp_path / "run", {"S": [record(0, "a", values={"psnr": 1.0, "d_vgg": 1.0}, **paths)]})
    found = build_report([method("m", run)], "T", 50, 0)
    publish(found, tmp_path / "out", PictureChoice(count=1))
    grid = cv2.imread(str(tmp_path / "out" / "set1_pictures.png"))
    for pixels in (np.kron(small, np.ones((2, 2, 1), np.uint8)), large[22:278, 72:328]):
        _, _, (left, top), _ = cv2.minMaxLoc(cv2.matchTemplate(grid, pixels, cv2.TM_SQDIFF))
        assert np.array_equal(grid[top : top + len(pixels), left : left + pixels.shape[1]], pixels)
