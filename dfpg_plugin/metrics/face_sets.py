"""Pairs of a whole set of faces, and how many are verified; Table 3 of the paper."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dfpg_plugin.checks import UserError, check_file
from dfpg_plugin.metrics.verification import Verification, verify

Pair = tuple[str, str, bool]  # a restored face, a photograph, and whether both show one person
Embeddings = Mapping[str, NDArray[np.float64] | None]
SAME = {"1": True, "0": False}


def read_pairs(path: Path) -> list[Pair]:
    """Read a list of pairs: ``restored photograph 1`` a line, 0 for two people; blank lines and # are skipped.

    Raises UserError, naming the line, for anything else.
    """
    pairs: list[Pair] = []
    text = check_file("pairs", path).read_text(encoding="utf-8", errors="surrogateescape")
    for number, line in enumerate(text.splitlines(), 1):
        parts = line.split()
        if not parts or parts[0].startswith("#"):
            continue
        if len(parts) != 3 or parts[2] not in SAME:
            raise UserError(f"{path}, line {number}: expected `restored photograph 1` or 0, found {line.strip()!r}.")
        pairs.append((parts[0], parts[1], SAME[parts[2]]))
    if not pairs:
        raise UserError(f"{path}: names no pair.")
    return pairs


def draw_pairs(
    restored: Mapping[str, str], photographs: Mapping[str, str], people: Mapping[str, str], seed: int
) -> list[Pair]:
    """Return a photograph of the same person and one of another for every restored face, as in Shen's list.

    ``restored``: the sharp photograph of each restored face, which is never its partner; ``photographs``: who is on
    each photograph; ``people``: who is on each restored face. Raises UserError where there is no partner.
    """
    pairs: list[Pair] = []
    everybody, of_person = sorted(photographs), defaultdict(list)
    for photograph in everybody:
        of_person[photographs[photograph]].append(photograph)
    for name, own in sorted(restored.items()):
        person = people[name]
        same = [photograph for photograph in of_person[person] if photograph != own]
        if not same or len(of_person[person]) == len(everybody):
            raise UserError(f"verification: {name} has no other photograph of {person}, or of anybody else.")
        # of the name, so that an image's partners stay the same where others are missing
        rng = np.random.default_rng([seed, int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big")])
        pairs.append((name, same[rng.integers(len(same))], True))
        while photographs[other := everybody[rng.integers(len(everybody))]] == person:
            pass
        pairs.append((name, other, False))
    return pairs


def verify_pairs(
    pairs: Sequence[Pair], embeddings: Embeddings, *, legacy_order: bool = False, seed: int = 0
) -> tuple[Verification, tuple[str, ...]]:
    """Return how well pairs are verified by the squared distance of embeddings, and the images left out.

    As in the published protocol, a pair counts only where exactly one face was found in both images; None in
    ``embeddings`` marks the others. Raises UserError for a name without an embedding, and as :func:`verify`.
    """
    unknown = sorted({name for pair in pairs for name in pair[:2] if name not in embeddings})
    if unknown:
        raise UserError(f"verification: no image is called {unknown[0]} ({len(unknown)} such names).")
    distances, same = [], []
    for first, second, is_same in pairs:
        one, two = embeddings[first], embeddings[second]
        if one is not None and two is not None:
            distances.append(float(np.sum((one - two) ** 2)))
            same.append(is_same)
    dropped = sorted({name for pair in pairs for name in pair[:2] if embeddings[name] is None})
    return verify(distances, same, legacy_order=legacy_order, seed=seed), tuple(dropped)
