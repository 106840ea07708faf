"""Every benchmark runs, at its smallest size; none is asked how long it takes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from conftest import ROOT
from skimage.data import astronaut

from dfpg_plugin.data.people import TEST, split_of

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
    others = {"gpu", "find_faces"}  # below
    assert {path.stem for path in FOLDER.glob("*.py")} == SHARED | set(TABLES) | set(PRINTED) | others


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


@pytest.mark.slow
def test_the_benchmark_of_a_gpu_runs_on_a_cpu(tmp_path: Path) -> None:
    ways = ("plain, TF32", "eager, bfloat16", "fast, bfloat16")
    run("gpu", "--device", "cpu", "--small", "--ways", *ways, "--json", tmp_path / "gpu.json")
    tables = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["way"] for row in tables["steps"]] == list(ways)
    assert {row["convolutions alone, ms"] > 0 for row in tables["steps"] if "bfloat16" in row["way"]} == {True}
    assert [(row["way"], row["faces"]) for row in tables["restoring"]] == [
        (way, faces) for way in ("float32", "bfloat16", "bfloat16, compiled") for faces in (1, 16)
    ]
    (loop,) = tables["loop"]
    assert 0 < loop["s to the first iteration"] < loop["s for 6"]
    assert not NOT_FINITE.search(json.dumps(tables))


@pytest.mark.slow
def test_the_benchmark_of_finding_faces_finds_a_face_in_each_picture(tmp_path: Path) -> None:
    """In a folder of LFW's shape: an astronaut where LFW has its faces, and the name of a person of the test split."""
    named = next(name for i in range(100) if split_of(name := f"Person_{i}") == TEST)
    face = cv2.resize(astronaut()[25:205, 135:315], (250, 250), interpolation=cv2.INTER_AREA)
    (tmp_path / "lfw" / named).mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "lfw" / named / f"{named}_0001.jpg"), face[..., ::-1])
    text = run("find_faces", tmp_path / "lfw", "--count", "1")
    assert "100" in text
    assert not NOT_FINITE.search(text)
