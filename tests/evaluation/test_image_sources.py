"""Images of another method, found by the blurred file's name."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from basicsr.data import build_dataset
from basicsr.utils import get_root_logger

from dfpg_plugin.checks import UserError
from dfpg_plugin.evaluation.image_sources import Batch, RestoredFolder
from dfpg_plugin.evaluation.planning import plan_evaluation


def write(folder: Path, names: dict[str, int]) -> None:
    folder.mkdir(exist_ok=True)
    for name, level in names.items():
        cv2.imwrite(str(folder / name), np.full((4, 4, 3), level, np.uint8))


def test_names_are_compared_whole(tmp_path: Path) -> None:
    """1 beside 10, and an image's suffix beside a name of the set that looks like one."""
    names = ["1", "10", "1_random", "2", "3"]
    write(tmp_path, {"1_x.png": 1, "10_x.png": 2, "1_random_x.jpg": 3, "2.png": 4, "2_x.png": 5})
    folder = RestoredFolder(str(tmp_path), "Set", [*names])
    assert folder.read("1").max() == 1
    assert folder.read("10").max() == 2
    assert folder.read("1_random").max() == 3
    assert folder.read("2").max() == 4  # the exact name goes first
    with pytest.raises(UserError, match=r"^missing$"):
        folder.read("3")


def test_a_folder_for_each_set_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(get_root_logger(), "warning", said.append)
    write(tmp_path, {"1.png": 1})
    write(tmp_path / "Set", {"1.png": 2, "2.png": 3})
    assert RestoredFolder(str(tmp_path), "Set", ["1"]).read("1").max() == 2
    assert said == []
    assert RestoredFolder(str(tmp_path), "Other", ["1"]).read("1").max() == 1
    assert said == [f"--images: 2 in folders below {tmp_path} are not used"]
    assert RestoredFolder(str(tmp_path), "Other", ["1"]).read("1").max() == 1
    write(tmp_path, {"1.jpg": 3})
    with pytest.raises(UserError, match=r"1\.jpg and 1\.png could both be the image of one name"):
        RestoredFolder(str(tmp_path), "Other", ["1"])


def test_faces_of_an_lmdb_are_named_by_their_whole_keys_before_and_after_reading(
    command: Callable, tmp_path: Path
) -> None:
    for kind in ("gt", "lq"):
        for person in ("s1", "s2"):
            (tmp_path / kind / person).mkdir(parents=True)
            picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
            cv2.imwrite(str(tmp_path / kind / person / "1.png"), picture)
        assert command("prepare", "lmdb", tmp_path / kind, "-o", tmp_path / f"{kind}.lmdb") == 0
    options = {
        "name": "faces", "type": "FacePairDataset", "phase": "test", "scale": 1, "io_backend": {"type": "lmdb"},
        "dataroot_gt": str(tmp_path / "gt.lmdb"), "dataroot_lq": str(tmp_path / "lq.lmdb"),
    }  # fmt: skip
    dataset = build_dataset(options)
    for _ in range(2):  # BasicSR's data sets change their options when they read the first time
        (plan,) = plan_evaluation({}, "blurred", [dataset], {}).sets
        assert Batch.read(plan.dataset, [0, 1]).names == ["s1_1", "s2_1"]
