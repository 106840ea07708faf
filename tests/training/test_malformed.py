"""Inputs made wrong one by one: each has a clear error and status 2, or is used, and nothing is left behind."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import small_options, write_yaml

WRONG = ("xyz", -1, [], {"a": 1}, True, None, float("nan"))


def leaves(opt: dict, path: tuple = ()) -> Iterator[tuple]:
    """Yield the path of every key."""
    for key, value in opt.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))


def with_value(opt: dict, path: tuple, value: object) -> dict:
    changed = copy.deepcopy(opt)
    section = changed
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = value
    return changed


def yaml_mutations() -> list[tuple[str, dict]]:
    """Return options in which one key has a value of another kind, is misspelt, or is missing."""
    opt = small_options()
    cases = []
    for number, path in enumerate(leaves(opt)):
        name = ":".join(path)
        for offset in (0, 3):  # two of the wrong values for each key, others for the next
            value = WRONG[(number + offset) % len(WRONG)]
            cases.append((f"{name}={value!r}", with_value(opt, path, value)))
        misspelt = with_value(opt, path, 0)
        section = misspelt
        for key in path[:-1]:
            section = section[key]
        section[f"{path[-1]}x"] = copy.deepcopy(section.pop(path[-1]))
        cases.append((f"{name}x", misspelt))
    return cases


class Outcomes:
    """Runs the command on each case and keeps what was not as it should be."""

    def __init__(self, command: Callable, folder: Path, capsys: pytest.CaptureFixture) -> None:
        self.command, self.folder, self.capsys = command, folder, capsys
        self.problems: list[str] = []
        self.statuses: dict[str, int] = {}

    def run(self, case: str, file: Path, *arguments: str) -> None:
        before = set(self.folder.rglob("*"))
        try:
            status = self.command("train", "-opt", file, "--dry-run", *arguments)
        except BaseException as error:
            self.problems.append(f"{case}: {type(error).__name__}: {error}")
            return
        output = self.capsys.readouterr()
        last = (output.err.strip().splitlines() or [""])[-1]
        self.statuses[case] = status
        if status not in (0, 2):
            self.problems.append(f"{case}: status {status}: {last}")
        if status == 2 and "basicsr: error: " not in output.err:
            self.problems.append(f"{case}: no message")
        if "Traceback" in output.err:
            self.problems.append(f"{case}: a traceback")
        if left := set(self.folder.rglob("*")) - before:
            self.problems.append(f"{case}: left {sorted(map(str, left))}")


@pytest.fixture
def outcomes(command: Callable, tmp_path: Path, capsys: pytest.CaptureFixture) -> Outcomes:
    return Outcomes(command, tmp_path, capsys)


@pytest.mark.slow
def test_options_of_another_kind_misspelt_or_missing(outcomes: Outcomes, tmp_path: Path) -> None:
    cases = yaml_mutations()
    assert len(cases) > 150
    for case, opt in cases:
        outcomes.run(case, write_yaml(tmp_path / "t.yml", opt))
        if case.endswith("x") and outcomes.statuses.get(case) == 0:
            outcomes.problems.append(f"{case}: a misspelt key was taken")
    assert outcomes.problems == []
