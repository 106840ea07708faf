"""Every benchmark runs, at its smallest size; none is asked how long it takes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from kit import ROOT
from skimage.data import astronaut

from dfpg_plugin.data.faces import orl_faces
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
    others = {"gpu", "find_faces", "cut_faces", "verify_lfw", "chessboard"}  # below
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


def make_lfw(folder: Path, people: int) -> Path:
    """Make a folder of LFW's shape: an astronaut where LFW has its faces, under names of people of the test split."""
    face = cv2.resize(astronaut()[25:205, 135:315], (250, 250), interpolation=cv2.INTER_AREA)
    named = [name for i in range(100) if split_of(name := f"Person_{i}") == TEST][:people]
    for name in named:
        (folder / name).mkdir(parents=True)
        cv2.imwrite(str(folder / name / f"{name}_0001.jpg"), face[..., ::-1])
    return folder


@pytest.mark.slow
def test_the_benchmark_of_cutting_faces_finds_the_eyes_of_everybody(tmp_path: Path) -> None:
    lfw = make_lfw(tmp_path / "lfw", people=3)
    run("cut_faces", lfw, "--share", "0.05", "--json", tmp_path / "cut.json")
    one, several, nobody = json.loads((tmp_path / "cut.json").read_text())["rows"]
    assert [one["cut out"], several["cut out"], nobody["cut out"]] == [1, 2, 0]
    assert (one["within 3 px, dlib"], several["within 3 px, dlib"]) == ("1 of 1", "2 of 2")
    assert "median, dlib" not in nobody


@pytest.mark.slow
def test_the_benchmark_of_finding_faces_finds_a_face_in_each_picture(tmp_path: Path) -> None:
    run("find_faces", make_lfw(tmp_path / "lfw", people=1), "--count", "1", "--json", tmp_path / "found")
    blurred, sharp, nobody = (
        json.loads((tmp_path / f"found_{name}.json").read_text())["rows"] for name in ("blurred", "sharp", "nobody")
    )
    assert len(blurred) == 4  # sizes
    assert sharp == [{"pictures": 1, "found": "100.0%", "boxed twice": 0, "other boxes": 0}]
    assert [row["boxes"] for row in nobody] == [0]


@pytest.mark.slow
def test_the_verification_of_lfw_counts_every_pair_and_goes_on_from_its_store(tmp_path: Path) -> None:
    """Two folds of two pairs of each kind, of three people; one picture shows nobody."""
    lfw, store, table = tmp_path / "lfw", tmp_path / "lfw.npz", tmp_path / "table.json"
    source = orl_faces("test")
    for person in ("s37", "s38", "s39"):
        (lfw / person).mkdir(parents=True)
        for n in range(1, 4):
            face = cv2.resize(source.read(f"{person}/{n}.pgm")[10:102], (250, 250), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(lfw / person / f"{person}_{n:04d}.jpg"), face)
    cv2.imwrite(str(lfw / "s39" / "s39_0003.jpg"), np.full((250, 250, 3), 128, np.uint8))
    same = ("s37\t1\t2", "s38\t1\t2", "s37\t2\t3", "s39\t1\t3")  # the last is judged wrongly
    two = ("s37\t1\ts38\t1", "s37\t2\ts38\t2", "s37\t3\ts39\t1", "s38\t3\ts39\t1")
    lines = ("2\t2", *same[:2], *two[:2], *same[2:], *two[2:])
    (tmp_path / "pairs.txt").write_text("".join(f"{line}\n" for line in lines))
    run("verify_lfw", lfw, tmp_path / "pairs.txt", "--store", store, "--json", table)
    (row,) = json.loads(table.read_text())["rows"]
    counts = [row[key] for key in ("pairs", "judged wrongly", "pictures", "without a face")]
    assert counts == [8, 1, 8, 1]
    assert (row["accuracy, %"], row["std of the folds"]) == ("87.50", "12.50")  # of 100 and 75 %
    with np.load(store) as stored:
        content = dict(stored)
    content["faces"][content["names"] == "s39_0003"] = 2
    np.savez(store, **content)
    run("verify_lfw", lfw, tmp_path / "pairs.txt", "--store", store, "--json", table)
    assert json.loads(table.read_text())["rows"] == [{**row, "without a face": 0, "with several": 1}]  # as it is stored


@pytest.mark.slow
def test_the_benchmark_of_the_chessboard_gives_its_amplitude(tmp_path: Path) -> None:
    row, column = np.mgrid[:48, :64]
    pattern = np.where((row + column) % 2, 7, -7)
    pictures = {"slope": column + 60, "stripes": 128 + np.where(column % 2, 7, -7), "pattern": column + 60 + pattern}
    for name, picture in pictures.items():
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "a.png"), picture.astype(np.uint8))
    found = re.findall(
        r"([\d.]+) grey levels in 1 pictures", run("chessboard", *(tmp_path / name for name in pictures))
    )
    assert [float(value) for value in found] == pytest.approx([0, 0, 7], abs=0.5)
