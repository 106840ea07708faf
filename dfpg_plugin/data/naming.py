"""The published names of blurred faces, and which sharp face each belongs to.

``{gt}_ker{id}_blur_k{size}``, as in Shen's and MSPL's test sets; some sets append a suffix such as ``_random``.
"""

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import NamedTuple

from dfpg_plugin.checks import UserError

PUBLISHED = re.compile(r"(.+)_ker([0-9]{2,})_blur_k([0-9]+)([^0-9].*)?", re.IGNORECASE)
NUM_LISTED = 20


class BlurredName(NamedTuple):
    """What a published name says: 00001_ker11_blur_k13 is ("00001", 11, 13, "")."""

    gt_stem: str
    kernel_id: int
    size: int  # px of the kernel's side
    suffix: str  # what follows, such as `_random`


def parse_blurred_name(name: str) -> BlurredName | None:
    """Read a blurred file's name or path, with its extension; None where it isn't in the published form.

    Markers count in any letter case, and the last ones where a face's own name contains them.
    """
    match = PUBLISHED.fullmatch(PurePath(name).stem)
    if match is None:
        return None
    return BlurredName(match[1], int(match[2]), int(match[3]), match[4] or "")


def blurred_name(gt_stem: str, kernel_id: int, size: int, suffix: str = "") -> str:
    """Return the published file name: ("00001", 11, 13) gives 00001_ker11_blur_k13.png.

    Raises UserError where :func:`parse_blurred_name` would read something else from it.
    """
    name = f"{gt_stem}_ker{kernel_id:02d}_blur_k{size}{suffix}.png"
    if parse_blurred_name(name) != (gt_stem, kernel_id, size, suffix):
        raise UserError(f"{name}: would not be read back. The suffix may not begin with a digit, nor look like a name.")
    return name


def pair_by_name(blurred: Sequence[str], sharp: Sequence[str]) -> list[tuple[str, str]]:
    """Return (blurred, sharp) for every blurred file, sorted; of paths, the file names alone are compared.

    A blurred stem belongs to the ground truth of the same stem, or of the published name's, with its suffix before
    without it. Letter case is ignored only where no ground truth matches with it. Raises UserError, naming the files,
    for ground truths of the same stem, for a blurred file without or with several ground truths, and for a ground truth
    without any blurred file.
    """
    check_stems(sharp, "would be the ground truth of the same blurred files")
    pairs, lonely, unclear = [], [], []
    used: set[str] = set()
    for name, found in match_by_name(sorted(blurred), sharp).items():
        used.update(found)
        if len(found) == 1:
            pairs.append((name, found[0]))
        elif found:
            unclear.append(f"{name} ({' or '.join(found)})")
        else:
            lonely.append(name)
    unused = [name for name in sorted(sharp) if name not in used]
    problems = {
        "blurred files without ground truth": lonely,
        "ground truths without a blurred file": unused,
        "blurred files with several ground truths": unclear,
    }
    if any(problems.values()):
        text = "; ".join(f"{what} ({len(names)}): {list_some(names)}" for what, names in problems.items() if names)
        raise UserError(f"{text}. Restore what is missing, or remove or rename these.")
    return pairs


def list_some(names: Sequence[str]) -> str:
    """Return the first names, separated by commas, and how many more there are."""
    more = len(names) - NUM_LISTED
    return ", ".join(names[:NUM_LISTED]) + (f" and {more} more" if more > 0 else "")


def check_stems(names: Sequence[str], problem: str) -> None:
    """Raise UserError, saying ``problem`` of both, where two files' names differ in folder or extension only."""
    seen: dict[str, str] = {}
    for name in names:
        first = seen.setdefault(PurePath(name).stem, name)
        if first != name:
            raise UserError(f"{first} and {name} {problem}. Rename or remove one.")


def match_by_name(blurred: Sequence[str], sharp: Sequence[str]) -> dict[str, list[str]]:
    """Return for each blurred file the ground truths that its name means, by the rules of :func:`pair_by_name`.

    Of ground truths with the same stem, the last one counts.
    """
    exact = {PurePath(name).stem: name for name in sharp}
    folded: dict[str, list[str]] = {}
    for stem, name in sorted(exact.items()):
        folded.setdefault(stem.casefold(), []).append(name)
    return {name: _find(name, exact, folded) for name in blurred}


def _find(name: str, exact: dict[str, str], folded: dict[str, list[str]]) -> list[str]:
    stems = [PurePath(name).stem]
    parsed = parse_blurred_name(name)
    if parsed is not None:
        stems += [parsed.gt_stem + parsed.suffix, parsed.gt_stem]
    for stem in stems:
        if stem in exact:
            return [exact[stem]]
    return next((folded[stem.casefold()] for stem in stems if stem.casefold() in folded), [])
