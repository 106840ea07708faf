"""Pairs of a set of faces: listed, drawn and verified."""

from pathlib import Path

import numpy as np
import pytest

from dfpg_plugin.checks import UserError
from dfpg_plugin.metrics.face_sets import draw_pairs, read_pairs, verify_pairs


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
    with pytest.raises(UserError, match="x has no other photograph of a"):
        draw_pairs({"x": "a/0"}, {"a/0": "a", "b/0": "b"}, {"x": "a"}, seed=0)


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
