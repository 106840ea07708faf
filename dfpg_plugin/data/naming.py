"""The published names of blurred faces, and the sharp face of each.

Shen's and MSPL's test sets name a blurred face ``{gt}_ker{id}_blur_k{size}``, such as ``00001_ker11_blur_k13.png``.
Some sets append a suffix such as ``_random``.
"""

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import NamedTuple

from dfpg_plugin.checks import UserError

PUBLISHED = re.compile(r"(.+)_ker([0-9]{2,})_blur_k([0-9]+)([^0-9].*)?", re.IGNORECASE)
NUM_LISTED = 20


class BlurredName(NamedTuple):
    """The parts of a published name: ``00001_ker11_blur_k13`` is ("00001", 11, 13, "")."""

    gt_stem: str
    kernel_id: int
    size: int  # px, the side of the kernel
    suffix: str  # text after the size, such as `_random`


def parse_blurred_name(name: str) -> BlurredName | None:
    """Read the name or path, with extension, of a blurred file. Return None for a name of another form.

    Letter case does not matter. If ``_ker`` and ``_blur_k`` occur twice, the last ones count.
    """
    match = PUBLISHED.fullmatch(PurePath(name).stem)
    if match is None:
        return None
    return BlurredName(match[1], int(match[2]), int(match[3]), match[4] or "")


def blurred_name(gt_stem: str, kernel_id: int, size: int, suffix: str = "") -> str:
    """Return the published file name: ("00001", 11, 13) gives ``00001_ker11_blur_k13.png``.

    Raises UserError if :func:`parse_blurred_name` would read other parts from the name.
    """
    name = f"{gt_stem}_ker{kernel_id:02d}_blur_k{size}{suffix}.png"
    if parse_blurred_name(name) != (gt_stem, kernel_id, size, suffix):
        raise UserError(
            f"{name} would be taken apart in another way. The suffix may not begin with a digit, nor look like a "
            "published name."
        )
    return name


def pair_by_name(blurred: Sequence[str], sharp: Sequence[str]) -> list[tuple[str, str]]:
    """Return (blurred, sharp) for every blurred file, sorted. Folders and extensions are ignored.

    The ground truth of ``7_ker01_blur_k13_x`` is ``7_ker01_blur_k13_x``, else ``7_x``, else ``7``. Letter case is
    ignored only if no ground truth matches exactly. Raises UserError, naming the files, for ground truths of the same
    stem, for a blurred file with no or several ground truths, and for a ground truth without any blurred file.
    """
    check_stems(sharp, "would be the ground truth of the same blurred files")
    pairs, without_gt, ambiguous = [], [], []
    used: set[str] = set()
    for name, found in match_by_name(sorted(blurred), sharp).items():
        used.update(found)
        if len(found) == 1:
            pairs.append((name, found[0]))
        elif found:
            ambiguous.append(f"{name} ({' or '.join(found)})")
        else:
            without_gt.append(name)
    unused = [name for name in sorted(sharp) if name not in used]
    problems = {
        "blurred files without ground truth": without_gt,
        "ground truths without a blurred file": unused,
        "blurred files with several ground truths": ambiguous,
    }
    if any(problems.values()):
        text = "; ".join(f"{what} ({len(names)}): {list_some(names)}" for what, names in problems.items() if names)
        raise UserError(f"{text}. Restore what is missing, or remove or rename these.")
    return pairs


def list_some(names: Sequence[str]) -> str:
    """Return the first 20 names, separated by commas, and the number of the others: ``a, b and 3 more``."""
    more = len(names) - NUM_LISTED
    return ", ".join(names[:NUM_LISTED]) + (f" and {more} more" if more > 0 else "")


def check_stems(names: Sequence[str], problem: str) -> None:
    """Raise UserError for two files whose names differ only in folder or extension. ``problem`` ends the sentence."""
    seen: dict[str, str] = {}
    for name in names:
        first = seen.setdefault(PurePath(name).stem, name)
        if first != name:
            raise UserError(f"{first} and {name} {problem}. Rename or remove one.")


def match_by_name(blurred: Sequence[str], sharp: Sequence[str]) -> dict[str, list[str]]:
    """Return the possible ground truths of each blurred file, by the rules of :func:`pair_by_name`.

    If several ground truths have the same stem, the last one counts.
    """
    exact = {PurePath(name).stem: name for name in sharp}
    folded: dict[str, list[str]] = {}
    for stem, name in sorted(exact.items()):
        folded.setdefault(stem.casefold(), []).append(name)
    return {name: _ground_truths_of(name, exact, folded) for name in blurred}


def _ground_truths_of(name: str, exact: dict[str, str], folded: dict[str, list[str]]) -> list[str]:
    stems = [PurePath(name).stem]
    parsed = parse_blurred_name(name)
    if parsed is not None:
        stems += [parsed.gt_stem + parsed.suffix, parsed.gt_stem]
    for stem in stems:
        if stem in exact:
            return [exact[stem]]
    for stem in stems:
        if stem.casefold() in folded:
            return folded[stem.casefold()]
    return []
