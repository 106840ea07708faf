"""Prepared folders whose writing failed at some step: no half files, and the next run finishes them."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from kit import fail_at

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.images import find_images, read_image
from dfpg_plugin.preparation.face_folder import FaceFormat
from dfpg_plugin.preparation.faces import prepare_faces
from dfpg_plugin.preparation.kernels import prepare_kernels
from dfpg_plugin.preparation.lfw import prepare_lfw
from dfpg_plugin.preparation.lmdb import write_lmdb
from dfpg_plugin.preparation.pairs import PairSettings, prepare_pairs

NOISE = np.random.default_rng(0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Pictures of LFW's size and kernels."""
    for person in ("AJ_Lamas", "George_W_Bush"):
        (tmp_path / "lfw" / person).mkdir(parents=True)
        for n in (1, 2):
            picture = cv2.resize(NOISE.integers(0, 256, (9, 9, 3), np.uint8), (250, 250))
            cv2.imwrite(str(tmp_path / "lfw" / person / f"{person}_{n:04d}.png"), picture)
    (tmp_path / "kernels").mkdir()
    np.save(tmp_path / "kernels" / "k.npy", NOISE.random((4, 5, 5)))
    return tmp_path


def lfw(source: Path, target: Path) -> None:
    prepare_lfw(source / "lfw", target, FaceFormat())


def demo_faces(source: Path, target: Path) -> None:
    del source
    prepare_faces(target, "val")


def kernels(source: Path, target: Path) -> None:
    del source
    prepare_kernels(target, [5, 7], 2, 0, "chakrabarti")


def pairs(source: Path, target: Path) -> None:
    prepare_pairs(source / "lfw", source / "kernels", target, PairSettings((5,), 2, 0, cut=40))


def files_of(target: Path) -> dict[str, bytes]:
    contents = {p.relative_to(target).as_posix(): p.read_bytes() for p in target.rglob("*") if p.is_file()}
    head = 128  # bytes of a .mat, with its date
    return {name: content[head:] if name.endswith(".mat") else content for name, content in contents.items()}


@pytest.mark.parametrize("prepare", [lfw, demo_faces, kernels, pairs])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_what_fails_is_not_there_and_the_next_run_finishes_it(
    source: Path, monkeypatch: pytest.MonkeyPatch, prepare: Callable[[Path, Path], None], step: str
) -> None:
    prepare(source, source / "whole" / "X")
    whole, target = files_of(source / "whole" / "X"), source / "broken" / "X"
    for number in (0, 2, 3, 1):  # of the files that are still to be written
        with monkeypatch.context() as patched:
            fail_at(patched, step, number)
            with pytest.raises(UserError, match=r"^[^\n]*/X/[^\n]*: can't be written \([^\n]*No space[^\n]*\)[^\n]*$"):
                prepare(source, target)
        made = {name: content for name, content in files_of(target).items() if not name.endswith(".json")}
        assert made == {name: whole[name] for name in made}
    prepare(source, target)
    assert files_of(target) == whole


@pytest.mark.parametrize("step", ["replace", "rename"])  # of meta_info.txt, of the whole
def test_an_lmdb_that_can_not_be_finished_is_not_there_and_finished_by_the_next_run(
    source: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    target = source / "faces.lmdb"
    with monkeypatch.context() as patched:
        fail_at(patched, step)
        with pytest.raises(UserError, match=r"^[^\n]*can't be written[^\n]*No space[^\n]*$"):
            write_lmdb(source / "lfw", target)
    assert not target.exists()
    assert write_lmdb(source / "lfw", target) == 4
    for key in find_images(target, "lmdb").names:
        found = find_images(target, "lmdb").read(key)
        np.testing.assert_array_equal(found, read_image(source / "lfw" / f"{key}.png"))
