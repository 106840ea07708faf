"""Pairs of faces of a whole set, and how many of the pairs are verified; Table 3 of the paper."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from dfpg_plugin.checks import UserError, check_file
from dfpg_plugin.metrics.verification import Verification, verify

Pair = tuple[str, str, bool]  # a restored face, a photograph, and whether both show one person
Embeddings = Mapping[str, NDArray[np.float64] | None]
IS_SAME = {"1": True, "0": False}  # the last column of a list of pairs
LFW_FORM = {True: "`person number number`", False: "`person number person number`"}  # by whether it is one person


def read_pairs(path: Path) -> list[Pair]:
    """Read a list of pairs, one a line: ``restored photograph 1``, or 0 for two people.

    Blank lines and lines that begin with # are skipped. Raises UserError, naming the line, for anything else.
    """
    pairs: list[Pair] = []
    text = check_file("pairs", path).read_text(encoding="utf-8", errors="surrogateescape")
    for number, line in enumerate(text.splitlines(), 1):
        parts = line.split()
        if not parts or parts[0].startswith("#"):
            continue
        if len(parts) != 3 or parts[2] not in IS_SAME:
            raise UserError(f"{path}, line {number}: expected `restored photograph 1` or 0, found {line.strip()!r}.")
        pairs.append((parts[0], parts[1], IS_SAME[parts[2]]))
    if not pairs:
        raise UserError(f"{path}: names no pair.")
    return pairs


def read_lfw_pairs(path: Path) -> tuple[list[Pair], list[int]]:
    """Read LFW's ``pairs.txt`` as it is distributed. Return its pairs and the fold of each pair, from 0.

    The first line gives the number of folds and the number of pairs of each kind in a fold: ``10 300``. In each fold,
    the pairs of one person come first, ``Abel_Pacheco 1 4``. The pairs of two people follow, ``Abdel_Madi_Shabneh 1
    Dean_Barker 1``. Each returned pair names two photographs by their files without the extension:
    ``("Abel_Pacheco_0001", "Abel_Pacheco_0004", True)``. Raises UserError, naming the line, for anything else.
    """
    text = check_file("pairs", path).read_text(encoding="utf-8", errors="surrogateescape")
    first, *lines = text.rstrip().splitlines() or [""]
    header = first.split()
    if len(header) != 2 or not all(_is_number(part) for part in header):
        found = first.strip()
        raise UserError(f"{path}, line 1: expected the numbers of folds and of pairs, as `10 300`, found {found!r}.")
    num_folds, per_kind = map(int, header)
    expected, given = 2 * num_folds * per_kind, len(lines)
    if given != expected:
        raise UserError(f"{path}, line 1: {num_folds} folds of 2 x {per_kind} pairs are {expected}, found {given}.")
    pairs: list[Pair] = []
    for number, line in enumerate(lines, 2):
        is_same = len(pairs) // per_kind % 2 == 0
        parts = line.split()
        full = [*parts[:2], *parts[:1], *parts[2:]] if is_same else parts  # person, number, person, number
        if len(full) != 4 or not (_is_number(full[1]) and _is_number(full[3])):
            raise UserError(f"{path}, line {number}: expected {LFW_FORM[is_same]}, found {line.strip()!r}.")
        pairs.append((_lfw_name(full[0], full[1]), _lfw_name(full[2], full[3]), is_same))
    return pairs, [i // (2 * per_kind) for i in range(len(pairs))]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) > 0


def _lfw_name(person: str, number: str) -> str:
    return f"{person}_{int(number):04d}"


def draw_pairs(
    restored: Mapping[str, str], photographs: Mapping[str, str], people: Mapping[str, str], seed: int
) -> list[Pair]:
    """Pair every restored face with a photograph of the same person and one of another, as in Shen's list.

    ``restored``: the sharp photograph of each restored face. This photograph is never the face's partner, in whatever
    folder and with whatever extension. ``photographs``: the person on each photograph. ``people``: the person on each
    restored face. A face gets no pair at all if no other photograph shows its person, or none shows anybody else. So
    there are as many pairs of one person as of two.
    """
    pairs: list[Pair] = []
    all_photographs, of_person = sorted(photographs), defaultdict(list)
    for photograph in all_photographs:
        of_person[photographs[photograph]].append(photograph)
    for name, own in sorted(restored.items()):
        person = people[name]
        same = [photograph for photograph in of_person[person] if PurePath(photograph).stem != PurePath(own).stem]
        if not same or len(of_person[person]) == len(all_photographs):
            continue
        # seeded by the face's name, so that a face keeps its partners if other faces are missing
        digest = hashlib.sha256(os.fsencode(name)).digest()
        rng = np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])
        pairs.append((name, same[rng.integers(len(same))], True))
        other = all_photographs[rng.integers(len(all_photographs))]
        while photographs[other] == person:
            other = all_photographs[rng.integers(len(all_photographs))]
        pairs.append((name, other, False))
    return pairs


def verify_pairs(
    pairs: Sequence[Pair],
    embeddings: Embeddings,
    *,
    legacy_order: bool = False,
    seed: int = 0,
    folds: Sequence[int] | None = None,
) -> tuple[Verification, tuple[str, ...]]:
    """Verify pairs by the squared distance of their embeddings. Return the result and the images left out.

    As in the published protocol, a pair counts only if exactly one face was found in each of its images. The embedding
    of any other image is None. ``folds``: the fold of each pair, as in :func:`verify`. Raises UserError for a name that
    ``embeddings`` lacks, and where :func:`verify` does.
    """
    unknown = sorted({name for pair in pairs for name in pair[:2] if name not in embeddings})
    if unknown:
        raise UserError(f"verification: no image is called {unknown[0]} ({len(unknown)} such names).")
    distances, same, kept = [], [], []
    for i, (first, second, is_same) in enumerate(pairs):
        one, two = embeddings[first], embeddings[second]
        if one is not None and two is not None:
            distances.append(float(np.sum((one - two) ** 2)))
            same.append(is_same)
            kept.append(i)
    fold_of = None if folds is None else [folds[i] for i in kept]
    dropped = sorted({name for pair in pairs for name in pair[:2] if embeddings[name] is None})
    return verify(distances, same, legacy_order=legacy_order, seed=seed, folds=fold_of), tuple(dropped)
