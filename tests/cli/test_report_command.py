"""`basicsr report` as a user runs it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from results_folders import drawn, write_run

from dfpg_cli.main import main


@pytest.fixture
def two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, shift in (("one", 0.0), ("two", 1.0)):
        write_run(tmp_path / "results" / name, {"S": drawn(0, shift=shift)})


@pytest.mark.usefixtures("two_runs")
def test_a_report_and_a_comparison(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["report", "one", "Two words=two", "--resamples", "50", "--num_pictures", "1"]) == 0
    folder = tmp_path / "reports" / "one_vs_Two_words"
    assert {Path(line).name for line in capsys.readouterr().out.splitlines()} == {p.name for p in folder.iterdir()}
    assert main(["report", "--compare", str(folder / "report.json"), str(folder / "report.json")]) == 0
    assert capsys.readouterr().out.count("the same") == 4


@pytest.mark.usefixtures("two_runs")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "report: no run is named"),
        (["three"], "three is no results folder"),
        (["one", "--compare", "a", "b"], "--compare: has no effect on runs"),
        (["one", "--out", "results"], "--out: results holds one and no report"),
        (["one", "--picture_metric", "lpips"], "--picture-metric: 'lpips' is not one of psnr"),
    ],
)
def test_what_is_wrong_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("basicsr: error: ")
    assert error.count("\n") == 1
    assert message in error


@pytest.mark.usefixtures("two_runs")
def test_in_a_process_of_its_own(basicsr: Callable) -> None:
    done = basicsr("report", "one", "two", "--out", "r", "--resamples", "20")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
