"""A run's log file."""

import logging
from pathlib import Path

import pytest
from basicsr.utils import get_root_logger

from dfpg_plugin.checks import UserError
from dfpg_plugin.runs.output import run_log


@pytest.mark.parametrize(
    "error", [UserError("a key: wrong"), FloatingPointError("a loss is NaN"), KeyError("a fault of a network")]
)
def test_the_log_file_keeps_the_cause_and_the_screen_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(get_root_logger(), "handlers", [logging.StreamHandler()])  # earlier ones hold earlier streams
    with pytest.raises(type(error)), run_log() as open_log:
        open_log(tmp_path / "run.log")
        get_root_logger().info("started")
        raise error from ZeroDivisionError("the cause")
    log = (tmp_path / "run.log").read_text(encoding="utf-8")
    assert "started" in log
    assert f"ERROR: {error}" in log
    assert "ZeroDivisionError: the cause" in log
    assert "Traceback (most recent call last)" in log
    assert "Traceback" not in capsys.readouterr().err
