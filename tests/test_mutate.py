"""The script that changes the code to see whether a test notices."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from kit import ROOT

SCRIPT = ROOT / "scripts" / "mutate.py"
LISTS = sorted((ROOT / "scripts").glob("*_changes.json"))


def entry(old: str, new: str) -> dict[str, str]:
    file, tests = "dfpg_plugin/models/gradient_norms.py", "tests/models/test_gradient_norms.py"
    return {"file": file, "old": old, "new": new, "tests": tests, "what": new}


def test_a_change_of_a_number_is_killed_and_one_of_words_survives(tmp_path: Path) -> None:
    changes = [entry("LATEST = 1000", "LATEST = 10"), entry("goes astray:", "is going astray:")]
    (tmp_path / "changes.json").write_text(json.dumps(changes), encoding="utf-8")
    before = {path: path.read_bytes() for path in (ROOT / "dfpg_plugin").rglob("*.py")}
    done = subprocess.run(
        [sys.executable, SCRIPT, "--jobs", "2", "--changes", tmp_path / "changes.json"], capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    fates = [line.split(":")[0] for line in done.stdout.splitlines()]
    assert fates == ["killed", "survived", "1 of 2 were noticed"]
    assert {path: path.read_bytes() for path in (ROOT / "dfpg_plugin").rglob("*.py")} == before


@pytest.mark.parametrize(
    ("file", "tests"),
    [
        ("dfpg_plugin/losses/prior_loss.py", [["tests/losses/test_prior_loss.py"], ["tests/losses"]]),
        ("dfpg_cli/main.py", [["tests/cli/test_main.py"], ["tests/cli"]]),
    ],
)
def test_a_modules_tests_are_those_of_its_name_and_its_room(file: str, tests: list[list[str]]) -> None:
    assert runpy.run_path(str(SCRIPT))["tests_of"](file, ROOT) == tests


@pytest.mark.parametrize("list_file", LISTS, ids=lambda path: path.stem)
def test_every_listed_change_can_be_made(list_file: Path) -> None:
    for change in json.loads(list_file.read_text(encoding="utf-8")):
        assert (ROOT / change["file"]).read_text(encoding="utf-8").count(change["old"]) == 1, change["what"]
        assert change["old"] != change["new"]
        for test in change["tests"].split():
            file, _, name = test.partition("::")
            assert f"def {name}" in (ROOT / file).read_text(encoding="utf-8"), test
