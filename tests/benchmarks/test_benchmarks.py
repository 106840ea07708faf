"""Every benchmark runs, at its smallest size; none is asked how long it takes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

FOLDER = ROOT / "benchmarks"
NOT_FINITE = re.compile(r"\b(nan|inf|infinity)\b", re.IGNORECASE)
SHARED = {"side_by_side"}  # what the others import
TABLES = {  # arguments, rows, a column that each row has
    "train_step": (
        ["--small", "--iterations", "0", "--steps", "1", "--batch", "1", "--size", "32"],
        3,
        "times as fast",
    ),
    "inference": (["--size", "32", "--rounds", "1", "--ways", "plain", "channels_last"], 2, "differs at most"),
    "memory": (["--small", "--steps", "1", "--batches", "1", "--sizes", "32"], 6, "MB"),
    "scaling": (["--small", "--steps", "1", "--batch", "2", "--size", "32"], 2, "weights differ at most"),
    "restorers": (["options/ablation/b1.yml", "--rounds", "1"], 1, "M parameters"),
}
PRINTED = {  # arguments, what is printed
    "data": (["--rounds", "1"], "blurring alone"),
    "demo_bounds": ([], "one linear filter for all"),
    "evaluate": (["--count", "2", "--sharp", "2", "--rounds", "1", "--network", "small"], "ssim_3d"),
}


def run(name: str, *arguments: object) -> str:
    """Run a benchmark on one thread in the repository; return what it prints."""
    done = subprocess.run(
        [sys.executable, FOLDER / f"{name}.py", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_no_benchmark_is_left_out() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == SHARED | set(TABLES) | set(PRINTED)


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_its_table_has_rows_of_finite_numbers(name: str, tmp_path: Path) -> None:
    arguments, count, column = TABLES[name]
    run(name, *arguments, "--json", tmp_path / "table.json")
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert len(rows) == count
    assert all(column in row for row in rows)
    assert not NOT_FINITE.search(json.dumps(rows))


@pytest.mark.slow
@pytest.mark.parametrize("name", PRINTED)
def test_it_prints_finite_numbers(name: str) -> None:
    arguments, words = PRINTED[name]
    text = run(name, *arguments)
    assert words in text
    assert not NOT_FINITE.search(text)
