"""The plan of an evaluation: which chunks are left, where their images come from, what travels to a worker."""

import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from dfpg_plugin.checks import UserError
from dfpg_plugin.evaluation import evaluate as evaluating
from dfpg_plugin.evaluation.image_sources import BlurredFaces, RestoredFolder, RestoringModel, SharpFaces
from dfpg_plugin.evaluation.planning import Chunk, plan_chunks, plan_evaluation


class Faces(list):
    """A data set of so many faces."""

    def __init__(self, count: int, name: str) -> None:
        super().__init__(range(count))
        self.opt = {"name": name}


def test_the_chunks_that_are_left_do_not_depend_on_where_an_evaluation_was_stopped() -> None:
    sets = [SimpleNamespace(dataset=Faces(5, "a")), SimpleNamespace(dataset=Faces(2, "b"))]
    first, second, third = Chunk(0, 0, (0, 1)), Chunk(1, 0, (2, 3)), Chunk(2, 0, (4,))
    other = Chunk(0, 1, (0, 1))
    assert plan_chunks(sets, [set(), set()], 2) == [first, second, third, other]
    assert plan_chunks(sets, [{0, 2}, set()], 2) == [second, other]
    assert plan_chunks(sets, [{0, 1, 2}, {0}], 2) == []


@pytest.mark.parametrize(
    ("images", "kind"), [("restored", RestoringModel), ("blurred", BlurredFaces), ("sharp", SharpFaces), ("", None)]
)
def test_images_come_from_where_they_are_asked_for(tmp_path: Path, images: str, kind: type | None) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((4, 6, 3), np.uint8))
    plan = plan_evaluation({}, images or str(tmp_path), [Faces(1, "a"), Faces(1, "b")], {})
    assert [type(part.source) for part in plan.sets] == [kind or RestoredFolder] * 2
    assert (plan.restoring is not None) == (images == "restored")
    assert [list(part.source.files) for part in plan.sets] == [[] if kind else [str(tmp_path / "1.png")]] * 2
    if plan.restoring is not None:
        assert {id(part.source) for part in plan.sets} == {id(plan.restoring)}  # one model for all sets


def test_two_sets_of_one_file_are_refused_before_anything_is_looked_at() -> None:
    with pytest.raises(UserError, match=r"two sets would be written to a_b\.jsonl\. Rename a/b"):
        plan_evaluation({}, "nowhere", [Faces(1, "a/b"), Faces(1, "a_b")], {})


def test_images_that_would_have_one_name_are_refused() -> None:
    faces = Faces(2, "a")
    faces.paths = [{"lq_path": f"/lq/{folder}/1.png", "gt_path": f"/gt/{folder}/1.png"} for folder in ("s1", "s2")]
    with pytest.raises(UserError, match=r"^a: /lq/s1/1\.png and /lq/s2/1\.png would both be the image 1\. Rename one"):
        plan_evaluation({}, "blurred", [faces], {})
    faces.opt["io_backend"] = {"type": "lmdb"}
    faces.paths = [{"lq_path": f"{folder}/1", "gt_path": f"{folder}/1"} for folder in ("s1", "s2")]
    plan_evaluation({}, "blurred", [faces], {})


def test_the_model_stays_behind_when_its_source_travels() -> None:
    source = RestoringModel({"num_gpu": 0})
    vars(source)["model"] = lambda: None  # can't be pickled
    assert vars(pickle.loads(pickle.dumps(source))) == {"opt": {"num_gpu": 0}}


def test_a_start_that_fails_leaves_nothing_behind(small_set: Callable) -> None:
    missing = {"type": "detection_rate", "recogniser": "facexlib", "weights": "nowhere"}
    files = small_set(people=1, metrics={}, set_metrics={"found": missing})
    before = sorted(files.folder.rglob("*"))
    with pytest.raises(UserError, match="nowhere"):
        files.run(images="blurred", workers=0)
    assert sorted(files.folder.rglob("*")) == before


def test_a_misspelt_set_metric_is_told_before_the_metrics_are_tried(
    small_set: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluating, "try_metrics", lambda opt: pytest.fail("tried"))
    files = small_set(people=1, set_metrics={"same": {"type": "verification_accuracy", "identiy": "x"}})
    with pytest.raises(UserError, match="identiy"):
        files.run(images="blurred", workers=0)
