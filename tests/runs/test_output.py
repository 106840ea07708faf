"""A run's log file."""

import errno
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from basicsr.utils import get_root_logger
from kit import fail_at, files_of_at_most

from dfpg_plugin.checks import UserError
from dfpg_plugin.runs.output import prepare_output, run_log


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


def test_a_copy_of_the_options_that_does_not_fit_on_the_disk_leaves_the_earlier_one(tmp_path: Path) -> None:
    file = tmp_path / "small.yml"
    file.write_text("earlier")
    given = SimpleNamespace(path=Path("elsewhere/small.yml"), text="name: small\n")
    options = SimpleNamespace(
        rank=0, plain={"is_train": True, "name": "small", "path": {}}, folder=tmp_path, file=given
    )
    with files_of_at_most(20), pytest.raises(UserError, match=r"small\.yml: can't be written"):
        prepare_output(options, lambda path: None, new=False)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("small.yml", "earlier")]
    prepare_output(options, lambda path: None, new=False)
    assert file.read_text().endswith("\n\nname: small\n")


@pytest.mark.parametrize("step", ["mkdir", "rename", "log"])
def test_a_run_s_folder_that_can_not_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    folder = tmp_path / "experiments" / "small"
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "net_g_8.pth").write_bytes(b"earlier")
    file = SimpleNamespace(path=Path("elsewhere/small.yml"), text="name: small\n")
    plain = {
        "is_train": True, "name": "small", "debug": False, "root_path": str(tmp_path),
        "logger": {"use_tb_logger": False},
        "path": {"experiments_root": str(folder), "models": str(folder / "models")},
    }  # fmt: skip
    options = SimpleNamespace(rank=0, plain=plain, folder=folder, file=file)

    def open_log(path: Path) -> None:
        if step == "log":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    if step != "log":
        fail_at(monkeypatch, step)
    with pytest.raises(UserError, match=rf"^{folder}: can't be written \(No space left on device\)\. Make room"):
        prepare_output(options, open_log, new=True)
    assert [path.read_bytes() for path in tmp_path.rglob("net_g_8.pth")] == [b"earlier"]
