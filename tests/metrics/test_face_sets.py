"""Pairs of a set of faces: listed, drawn and verified."""

from pathlib import Path

import numpy as np
import pytest

from dfpg_plugin.checks import UserError
from dfpg_plugin.metrics.face_sets import draw_pairs, read_lfw_pairs, read_pairs, verify_pairs
from dfpg_plugin.metrics.verification import verify

# two folds of two pairs of each kind, in LFW's form
LFW_PAIRS = "2\t2\nA_B\t1\t2\nC\t1\t3\nA_B\t1\tC\t1\nA_B\t2\tC\t12\nD\t1\t2\nD\t2\t3\nD\t1\tE\t1\nD\t2\tE\t1\n"


def test_lists_of_pairs(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("# restored photograph same\n\na.png b.png 1\na.png c.png 0\n")
    assert read_pairs(tmp_path / "pairs.txt") == [("a.png", "b.png", True), ("a.png", "c.png", False)]
    (tmp_path / "pairs.txt").write_text("a.png b.png 1\na.png b.png yes\n")
    with pytest.raises(UserError, match=r"pairs\.txt, line 2: expected `restored photograph 1` or 0, found 'a"):
        read_pairs(tmp_path / "pairs.txt")
    (tmp_path / "pairs.txt").write_text("#\n")
    with pytest.raises(UserError, match="names no pair"):
        read_pairs(tmp_path / "pairs.txt")


def test_drawn_pairs_are_one_of_each_kind_and_never_with_the_own_photograph() -> None:
    photographs = {f"{who}/{n}": who for who in "abc" for n in range(3)}
    restored = {f"{p}_ker{k}": p for p in photographs for k in range(4)}
    people = {name: photographs[p] for name, p in restored.items()}
    pairs = draw_pairs(restored, photographs, people, seed=0)
    assert len(pairs) == 2 * len(restored)
    for name, partner, is_same in pairs:
        assert is_same == (photographs[partner] == people[name])
        assert partner != restored[name]
    assert pairs == draw_pairs(restored, photographs, people, seed=0) != draw_pairs(restored, photographs, people, 1)


def test_a_face_keeps_its_partners_whatever_other_faces_there_are() -> None:
    photographs = {f"{who}/{n}": who for who in "abcd" for n in range(4)}
    people = {f"{p}_ker{k}": who for p, who in photographs.items() for k in range(2)}
    restored = {name: name.partition("_")[0] for name in people}
    pairs = draw_pairs(restored, photographs, people, seed=5)
    for some in (list(restored)[3:9], list(restored)[::-3]):
        alone = draw_pairs({name: restored[name] for name in some}, photographs, people, seed=5)
        assert alone == [pair for pair in pairs if pair[0] in some]
    partners = [tuple(partner for name, partner, _ in pairs if name == face) for face in restored]
    assert len(set(partners)) > len(restored) / 2


VERIFIED = [{"seed": 0}, {"seed": 3}, {"legacy_order": True}]


@pytest.mark.parametrize("settings", VERIFIED)
def test_pairs_are_verified_with_the_seed_and_the_order_that_are_given(settings: dict) -> None:
    rng = np.random.default_rng(0)
    same = [True] * 23 + [False] * 23
    distances = np.abs([rng.normal(0.9 if is_same else 1.3, 0.4) for is_same in same])
    embeddings = {"r": np.zeros(2), **{f"p{n}": np.array([0, d**0.5]) for n, d in enumerate(distances)}}
    pairs = [("r", f"p{n}", is_same) for n, is_same in enumerate(same)]
    result, _ = verify_pairs(pairs, embeddings, **settings)
    expected = verify(distances, same, **settings)
    assert (result.accuracy, result.std) == pytest.approx((expected.accuracy, expected.std))
    others = [verify(distances, same, **other).std for other in VERIFIED if other != settings]
    assert not any(std == pytest.approx(expected.std) for std in others)


def test_a_face_without_a_partner_of_both_kinds_has_no_pair() -> None:
    people = {"x": "a", "y": "b"}
    # a has one photograph alone, whose copy in another folder is no partner; b has two
    photographs = {"a/a_0.jpg": "a", "b/b_0.jpg": "b", "b/b_1.jpg": "b"}
    pairs = draw_pairs({"x": "a_0.png", "y": "b_0.png"}, photographs, people, 0)
    assert pairs == [("y", "b/b_1.jpg", True), ("y", "a/a_0.jpg", False)]
    assert draw_pairs({"y": "b_0.png"}, {"b_0.png": "b", "b_1.png": "b"}, people, 0) == []


def test_lfws_list_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text(LFW_PAIRS)
    pairs, folds = read_lfw_pairs(tmp_path / "pairs.txt")
    assert pairs == [
        ("A_B_0001", "A_B_0002", True), ("C_0001", "C_0003", True),
        ("A_B_0001", "C_0001", False), ("A_B_0002", "C_0012", False),
        ("D_0001", "D_0002", True), ("D_0002", "D_0003", True),
        ("D_0001", "E_0001", False), ("D_0002", "E_0001", False),
    ]  # fmt: skip
    assert folds == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("2\t2\n", "", r"line 1: expected the numbers of folds and of pairs, as `10 300`, found 'A_B\\t1\\t2'"),
        ("2\t2\n", "2\t0\n", "line 1: expected the numbers of folds"),
        ("2\t2\n", "2\t3\n", "line 1: 2 folds of 2 x 3 pairs are 12, found 8"),
        ("C\t1\t3", "C\t1", r"line 3: expected `person number number`, found 'C\\t1'"),
        ("C\t1\t3", "C\t1\tA_B\t2", "line 3: expected `person number number`, found 'C"),
        ("C\t1\t3", "C\t1\tthree", "line 3: expected `person number number`"),
        ("D\t1\tE\t1", "D\t1\t3", "line 8: expected `person number person number`, found 'D"),
        ("D\t1\tE\t1", "D\t1\tE\t0", "line 8: expected `person number person number`"),
    ],
)
def test_a_wrong_line_of_lfws_list_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "pairs.txt").write_text(LFW_PAIRS.replace(old, new))
    with pytest.raises(UserError, match=rf"pairs\.txt, {message}"):
        read_lfw_pairs(tmp_path / "pairs.txt")


def test_an_empty_list_of_lfws_form_is_named(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("")
    with pytest.raises(UserError, match=r"pairs\.txt, line 1: expected .*, found ''"):
        read_lfw_pairs(tmp_path / "pairs.txt")
    with pytest.raises(UserError, match=r"none\.txt"):
        read_lfw_pairs(tmp_path / "none.txt")


def test_each_fold_of_lfws_list_is_judged_by_the_threshold_of_the_other(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text(LFW_PAIRS)
    pairs, folds = read_lfw_pairs(tmp_path / "pairs.txt")
    places = {
        "A_B_0001": 0.0, "A_B_0002": 0.5, "C_0001": 1.0, "C_0003": 1.4, "C_0012": 1.6,
        "D_0001": 0.0, "D_0002": 1.05, "D_0003": 0.1, "E_0001": 1.2,
    }  # fmt: skip
    embeddings = {name: np.array([place]) for name, place in places.items()}
    result, dropped = verify_pairs(pairs, embeddings, folds=folds)
    # squared distances of the first fold: one person 0.25, 0.16; two 1.00, 1.21
    # of the second:                       one person 1.1025, 0.9025; two 1.44, 0.0225
    # first: the lowest best of the second, above 1.1025, is right on 3 of 4; second: just above 0.25 is right on 1
    assert result.thresholds == pytest.approx((1.1026, 0.2501), abs=1.1e-4)
    assert result.right == (True, True, False, True, False, False, True, False)
    assert (result.accuracy, result.count, dropped) == (0.5, 8, ())
    assert result.std == pytest.approx(0.25)  # of 3/4 and 1/4
    result, dropped = verify_pairs(pairs, {**embeddings, "C_0012": None}, folds=folds)
    assert (result.count, dropped) == (7, ("C_0012",))
    assert result.accuracy == pytest.approx((2 / 3 + 1 / 4) / 2)


def test_pairs_are_verified_by_the_squared_distance_and_faces_not_found_are_named() -> None:
    embeddings: dict = {f"p{n}": np.eye(20)[n] for n in range(20)}
    embeddings |= {f"r{n}": embeddings[f"p{n}"] * 0.6 + np.eye(20)[(n + 1) % 20] * 0.8 for n in range(20)}
    pairs = [(f"r{n}", f"p{n}", True) for n in range(20)] + [(f"r{n}", f"p{(n + 7) % 20}", False) for n in range(20)]
    result, dropped = verify_pairs(pairs, embeddings)
    assert (result.accuracy, dropped) == (1, ())
    # |r - p|^2 is 0.8 for one person, 2 for two; the lowest threshold that separates them is taken
    assert result.thresholds == pytest.approx([0.8] * 10, abs=2e-4)
    result, dropped = verify_pairs(pairs, {**embeddings, "p3": None})
    assert (result.accuracy, result.count, dropped) == (1, 38, ("p3",))
    with pytest.raises(UserError, match="no image is called p19"):
        verify_pairs(pairs, {k: v for k, v in embeddings.items() if k != "p19"})
