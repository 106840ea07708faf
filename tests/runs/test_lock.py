"""Two runs can't write into one folder."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from kit import ROOT, fail_at, write_yaml

from dfpg_plugin.checks import UserError
from dfpg_plugin.runs.lock import locked


def test_a_second_holder_is_refused_and_the_first_named(tmp_path: Path) -> None:
    refused = pytest.raises(UserError, match=rf"run is being written by process {os.getpid()}\.")
    with locked(tmp_path / "run"), refused, locked(tmp_path / "run"):
        pass
    with locked(tmp_path / "run"):  # free again
        pass


def test_a_full_disk_takes_no_number_but_the_lock_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_at(monkeypatch, "pwrite")
    refused = pytest.raises(UserError, match=r"run is being written by another process\.")
    with locked(tmp_path / "run"), refused, locked(tmp_path / "run"):
        pass
    fail_at(monkeypatch, "open")
    with pytest.raises(UserError, match=rf"^{tmp_path}: can't be written \(No space left"), locked(tmp_path / "run"):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from dfpg_plugin.runs.lock import locked\n"
        "with locked(Path(sys.argv[1])):\n os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    assert subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode == -9
    assert (tmp_path / ".run.lock").exists()
    with locked(tmp_path / "run"):
        pass


def test_a_second_run_of_one_name_ends_before_it_touches_anything(
    command: Callable, demo_options: dict, tmp_path: Path, capsys
) -> None:
    file = write_yaml(tmp_path / "small.yml", {**demo_options, "train": {**demo_options["train"], "total_iter": 1}})
    assert command("train", "-opt", file) == 0
    run = tmp_path / "experiments" / "small"
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    with locked(run):
        for extra in ((), ("--auto_resume",)):
            assert command("train", "-opt", file, *extra) == 2
            assert "is being written by process" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in run.parent.rglob("*") if p.is_file() and p.parent != run.parent} == before
