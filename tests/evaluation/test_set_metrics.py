"""Detection and verification in an evaluation, with dlib and with lists and drawn pairs."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.faces import orl_faces
from dfpg_plugin.evaluation import set_metrics
from dfpg_plugin.evaluation.records import read_run
from dfpg_plugin.evaluation.set_metrics import Partners, VerificationOptions, describe_set_metrics, read_set_metrics
from dfpg_plugin.metrics.recognisers import load_recogniser
from dfpg_plugin.metrics.verification import verify
from dfpg_plugin.reports.methods import agreed_metrics

IDENTITY = r"^(s\d+)"


def write_photographs(folder: Path) -> None:
    folder.mkdir()
    for person in range(37, 41):
        for picture in (1, 2):
            image = orl_faces("test").read(f"s{person}/{picture}.pgm")
            cv2.imwrite(str(folder / f"s{person}_{picture}.png"), image)


def test_detection_and_distances_are_dlibs(small_set: Callable) -> None:
    files = small_set(
        metrics={},
        set_metrics={
            "detection": {"type": "detection_rate"},
            "verification": {"type": "verification_accuracy", "photographs": "photographs", "identity": IDENTITY},
        },
    )
    write_photographs(files.folder / "photographs")
    run = read_run(files.run(images="blurred"))
    dlib = load_recogniser("dlib", None)
    assert run.manifest["metrics"]["detection"]["uses"]["recogniser"] == dlib.name
    found = set()
    for record in run.sets["Small"]:
        image = cv2.imread(record.lq_path)
        faces = dlib.find(image)
        assert record.values["detection"] == float(len(faces) > 0)
        found.add(len(faces))
        pairs = record.pairs["verification"]
        assert [(same, place) for _, _, same, place in pairs] == [(True, 0), (False, 1)]
        for photograph, distance, same, _ in pairs:
            assert (photograph.split("_")[0] == record.name.split("_")[0]) == same
            partner = cv2.imread(str(files.folder / "photographs" / photograph))
            other = dlib.embed_only_face(partner)
            if len(faces) != 1 or other is None:
                assert distance is None
            else:
                own = dlib.embed(image, faces[0])
                assert distance == pytest.approx(float(np.sum((own - other) ** 2)))
    assert 1 in found


def test_a_picture_of_two_faces_counts_once_and_is_not_verified(small_set: Callable) -> None:
    verification = {"type": "verification_accuracy", "photographs": "photographs", "identity": IDENTITY}
    set_metrics = {"detection": {"type": "detection_rate"}, "verification": verification}
    files = small_set(people=3, sizes=(5,), metrics={}, set_metrics=set_metrics)
    write_photographs(files.folder / "photographs")
    face = cv2.resize(orl_faces("test").read("s37/1.pgm"), (184, 224))
    pictures = [np.hstack([face] * 2), face, np.full_like(face, 90)]
    for name, picture in zip(files.names, pictures, strict=True):
        cv2.imwrite(str(files.folder / "set" / "set_blur" / f"{name}.png"), picture)
        cv2.imwrite(str(files.folder / "set" / "set_gt" / f"{name.split('_')[0]}.png"), picture)
    dlib = load_recogniser("dlib", None)
    assert [len(dlib.find(picture)) for picture in pictures] == [2, 1, 0]
    records = {record.name: record for record in read_run(files.run(images="blurred")).sets["Small"]}
    found = [records[name] for name in files.names]
    assert [record.values["detection"] for record in found] == [1, 1, 0]
    verified = [[distance is not None for _, distance, _, _ in record.pairs["verification"]] for record in found]
    assert verified == [[False, False], [True, True], [False, False]]


def test_an_image_keeps_its_partners_where_others_are_missing(tmp_path: Path) -> None:
    write_photographs(tmp_path / "p")
    names = sorted(path.name for path in (tmp_path / "p").iterdir())
    partners = Partners(VerificationOptions(identity=IDENTITY, seed=3), tmp_path / "p", names, [], {})
    alone = partners.partners_of("s37_1_ker01_blur_k5", "s37_1.png")
    assert alone == partners.partners_of("s37_1_ker01_blur_k5", "s37_1.png")
    assert alone[0] == ("s37_2.png", True, 0)  # never its own sharp face
    others = {partners.partners_of(f"s37_1_ker{k:02d}_blur_k5", "s37_1.png")[1][0] for k in range(12)}
    assert len(others) > 2  # the seed alone does not choose
    with pytest.raises(UserError, match=r"finds nobody in the photograph's path face\.png"):
        partners.partners_of("x", "face.png")


def test_a_person_of_one_photograph_has_no_partner(tmp_path: Path) -> None:
    write_photographs(tmp_path / "p")
    (tmp_path / "p" / "s38_2.png").unlink()
    options = VerificationOptions(identity=IDENTITY, photographs=str(tmp_path / "p"))
    # sharp faces may lie elsewhere and have another extension than the photographs
    partners = Partners(options, tmp_path, ["s37_1.jpg", "s38_1.jpg"], [], {})
    assert partners.distances("s38_1_ker01_blur_k5", "s38_1.jpg", None) == []
    assert partners.partners_of("s37_1_ker01_blur_k5", "s37_1.jpg")[0] == ("s37_2.png", True, 0)
    with pytest.raises(UserError, match=r"finds no pair in .* for 1 sharp faces\. A face needs another photograph"):
        Partners(options, tmp_path, ["s38_1.jpg"], [], {})


def test_an_image_without_a_face_matches_nobody_where_it_counts(tmp_path: Path) -> None:
    write_photographs(tmp_path / "p")
    cv2.imwrite(str(tmp_path / "p" / "s37_2.png"), np.full((112, 92), 90, np.uint8))
    given = {"identity": IDENTITY, "photographs": str(tmp_path / "p")}
    names = [f"s{person}_1.png" for person in range(37, 41)]
    left_out, counts = (
        Partners(VerificationOptions(**given, **way), tmp_path, names, [], {}) for way in ({}, {"unfound": "no_match"})
    )
    unfound = [
        [[row.distance for row in ways.distances("x", name, None)] for name in names] for ways in (left_out, counts)
    ]
    # the photograph s37_2 shows no face either
    assert unfound == [[[None, None]] * 4, [[None, 4.0], [4.0, 4.0], [4.0, 4.0], [4.0, 4.0]]]
    found = left_out.embeddings["s38_1.png"]
    assert left_out.distances("x", "s38_1.png", found) == counts.distances("x", "s38_1.png", found)
    # such a pair is judged to be two people even where a threshold that accepts all pairs would be the best
    (distance,) = {distance for row in unfound[1] for distance in row} - {None}
    judged = verify([3.9] * 30 + [distance] * 20, [True] * 30 + [True] * 10 + [False] * 10)
    assert judged.right == (True,) * 30 + (False,) * 10 + (True,) * 10


def test_each_photograph_is_looked_at_once_for_all_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photographs(tmp_path / "p")
    names = [f"s{person}_1.png" for person in range(37, 41)]
    options, embedded = VerificationOptions(identity=IDENTITY, photographs=str(tmp_path / "p")), {}
    first = Partners(options, tmp_path, names, [], embedded)
    monkeypatch.setattr(set_metrics, "load_recogniser", None)
    again = Partners(options.model_copy(update={"unfound": "no_match"}), tmp_path, names, [], embedded)
    assert len(embedded) == 8
    assert all(again.embeddings[name] is embedding for name, embedding in first.embeddings.items())


def without_unfound(facts: dict) -> dict:
    return {**facts, "settings": {key: value for key, value in facts["settings"].items() if key != "unfound"}}


def test_results_that_know_no_unfound_can_be_compared() -> None:
    usual, counts = (VerificationOptions(identity=IDENTITY, **way) for way in ({}, {"unfound": "no_match"}))
    found = describe_set_metrics({"usual": usual, "counts": counts})
    runs = [SimpleNamespace(manifest={"metrics": {"v": found["usual"]}}, folder=Path("new"))]
    runs.append(SimpleNamespace(manifest={"metrics": {"v": without_unfound(found["usual"])}}, folder=Path("old")))
    assert agreed_metrics([SimpleNamespace(runs=runs)]) == {"v": found["usual"]}
    runs.append(SimpleNamespace(manifest={"metrics": {"v": found["counts"]}}, folder=Path("other")))
    with pytest.raises(UserError, match=r"settings:unfound: None / no_match"):
        agreed_metrics([SimpleNamespace(runs=runs)])
    assert "unfound" not in found["usual"]["settings"]
    assert found["counts"]["settings"] == {**found["usual"]["settings"], "unfound": "no_match"}


def test_pairs_from_a_list(tmp_path: Path) -> None:
    write_photographs(tmp_path / "p")
    (tmp_path / "pairs.txt").write_text("a.png s37_2.png 1\na.png s38_1.png 0\nb s39_1.png 1\n")
    options = VerificationOptions(pairs=str(tmp_path / "pairs.txt"), photographs=str(tmp_path / "p"))
    partners = Partners(options, tmp_path, [], ["a", "b", "c"], {})
    assert partners.partners_of("a", "a.png") == [("s37_2.png", True, 0), ("s38_1.png", False, 1)]
    assert partners.partners_of("b", "b.png") == [("s39_1.png", True, 2)]
    assert partners.partners_of("c", "c.png") == []
    assert sorted(partners.embeddings) == ["s37_2.png", "s38_1.png", "s39_1.png"]
    with pytest.raises(UserError, match=r"pairs\.txt: b is no image of the test set"):
        Partners(options, tmp_path, [], ["a"], {})
    (tmp_path / "pairs.txt").write_text("a.png gone.png 1\n")
    with pytest.raises(UserError, match=r"gone\.png is not in"):
        Partners(options, tmp_path, [], ["a"], {})


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (["x"], "val:set_metrics: expected metrics by name"),
        ({"a": {"type": "detection"}}, "val:set_metrics:a:type: 'detection' is not one of detection_rate"),
        ({"a": {"type": "detection_rate", "recognizer": "dlib"}}, "unknown key 'recognizer'. Did you mean recogniser"),
        ({"a": {"type": "detection_rate", "weights": 3}}, "val:set_metrics:a: weights: expected text"),
        ({"a": {"type": "verification_accuracy"}}, "needs either pairs"),
        ({"a": {"type": "verification_accuracy", "identity": "("}}, "identity: '(' is no expression"),
        ({"a": {"type": "verification_accuracy", "identity": "a", "pairs": "b"}}, "needs either pairs"),
        ({"a": {"type": "verification_accuracy", "identity": "a", "seed": -1}}, "seed: expected a whole number from 0"),
        (
            {"a": {"type": "detection_rate", "better": "lower"}},
            "a:better: 'lower' is not one of higher",
        ),
        ({"psnr": {"type": "detection_rate"}}, "val:set_metrics:psnr: val:metrics has a metric of that name"),
    ],
)
def test_wrong_options_are_named(section: object, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read_set_metrics(section, ["psnr"])
    assert message in str(caught.value)
