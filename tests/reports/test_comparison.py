"""Why two reports differ: every recorded reason, and the images where none is recorded."""

from pathlib import Path

import pytest
from results_folders import METRICS, PSNR, drawn, method, record, write_run

from dfpg_plugin.checks import UserError
from dfpg_plugin.evaluation.records import Record
from dfpg_plugin.reports.comparison import compare_reports
from dfpg_plugin.reports.picture_choice import PictureChoice
from dfpg_plugin.reports.publish import publish
from dfpg_plugin.reports.report import build_report


def published(folder: Path, records: list[Record], label: str = "m", **others: object) -> Path:
    run = write_run(folder / "run", {"S": records}, **others)
    publish(build_report([method(label, run)], "T", 50, 0), folder / "out", PictureChoice(count=1))
    return folder / "out" / "report.json"


def test_equal_reports(tmp_path: Path) -> None:
    a, b = published(tmp_path / "a", drawn(0)), published(tmp_path / "b", drawn(0), "other name")
    lines = compare_reports(a, b)
    assert len(lines) == 2
    assert all(line.endswith(": the same") for line in lines)
    assert lines[0].startswith("S, psnr, m / other name: ")


def test_every_recorded_reason_is_said(tmp_path: Path) -> None:
    a = published(tmp_path / "a", drawn(0))
    records = drawn(0, shift=1.0)[:-1]
    records[0] = record(0, records[0].name, pixels="other", values=records[0].values)
    other = {**METRICS, "psnr": {**PSNR, "settings": {"crop_border": 4}}}
    facts = {"software": {"torch": "3", "dlib-bin": None}, "commit": "def", "machine": {"device": "GPU", "workers": 2}}
    weights = {"file": "net.pth", "sha256": "1" * 64, "param_key": "params"}
    net = {"images": "restored", "model_type": "SRModel", "network_g": None, "parameters": 1, "weights": weights}
    b = published(tmp_path / "b", records, metrics=other, method=net, **facts)
    lines = compare_reports(a, b)
    reasons = [line.strip() for line in lines[1 : lines.index(next(x for x in lines if x.startswith("S, d_vgg")))]]
    assert lines[0].endswith(": differ")
    for expected in (
        "psnr: settings:crop_border: 0 / 4",
        "images only in the first (1): face5_k9",
        "images with other pixels (1): face0_k5",
        "images measured: 12 / 11",
        f"method:weights:sha256: {'0' * 64} / {'1' * 64}",
        "software:torch: 2 / 3",
        "commit: abc / def",
        "machine:device: CPU / GPU",
    ):
        assert expected in reasons, expected


def test_without_a_recorded_reason_the_images_are_named(tmp_path: Path) -> None:
    records = drawn(0)
    records[3] = record(3, records[3].name, values={**records[3].values, "psnr": 20.0})
    a, b = published(tmp_path / "a", drawn(0)), published(tmp_path / "b", records)
    lines = compare_reports(a, b)
    assert lines[1] == "  nothing that was recorded differs, but the values of 1 images do: face1_k9"
    a.with_suffix(".csv").unlink()
    assert "not beside both" in compare_reports(a, b)[1]


def test_files_that_are_no_reports(tmp_path: Path) -> None:
    a = published(tmp_path / "a", drawn(0))
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(UserError, match=r"x\.json: is no report of this version"):
        compare_reports(a, tmp_path / "x.json")
    with pytest.raises(UserError, match=r"--compare: .* does not exist"):
        compare_reports(a, tmp_path / "gone.json")
    run = write_run(tmp_path / "t", {"T": drawn(0)})
    publish(build_report([method("m", run)], "T", 50, 0), tmp_path / "t_out", PictureChoice(count=1))
    with pytest.raises(UserError, match="have no method, set and metric in common"):
        compare_reports(a, tmp_path / "t_out" / "report.json")


def test_missing_images_are_named(tmp_path: Path) -> None:
    records = drawn(0)
    records[3] = Record(3, records[3].name, records[3].gt, 9, records[3].pixels, problem="missing")
    a, b = published(tmp_path / "a", drawn(0)), published(tmp_path / "b", records)
    assert "  missing: nothing / missing (1: face1_k9)" in compare_reports(a, b)
