"""`basicsr prepare check`: what is odd about the images of a data folder, and what training does with it."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import Pool
from pathlib import Path, PurePath

import cv2
import numpy as np
from PIL import ExifTags
from PIL import Image as PillowImage
from tqdm import tqdm

from dfpg_plugin.checks import UserError, check_folder, check_positive
from dfpg_plugin.data.images import Image, decode_image, look_for_images
from dfpg_plugin.data.kinds import SeveralPagesError, open_head
from dfpg_plugin.data.naming import list_some, match_by_name

UPRIGHT = 1
DEEP = 16  # bits of a channel
PNG_DEPTH = 24  # where a PNG's header says them
SKIPPED, REFUSED = "skipped: ", "refused, and the set with it: "  # by a training set, by FaceDeblurTestDataset
GREY_MODES = ("1", "L", "LA", "I;16", "I;16B", "I;16L", "I")


@dataclass(frozen=True)
class Finding:
    """One oddity of one file."""

    path: Path
    # such as broken, ignored, several pages, grey, 16-bit, alpha, cmyk, palette, too small, mismatched
    kind: str
    consequence: str  # what training does with it
    usable: bool  # whether training uses the file


@dataclass(frozen=True)
class _Checked:
    findings: tuple[Finding, ...]
    size: tuple[int, int] | None = None  # (width, height) as training sees it; None where it can't


def check_images(folder: Path, *, min_side: int, workers: int = 0) -> list[Finding]:
    """Decode every image below ``folder`` and tell what is odd, in the order of their paths.

    ``min_side`` (px) is what the crops need. Whole RGB images of 8 bits give no finding. ``workers``: processes besides
    this one. Raises UserError where the folder is missing or holds no image.
    """
    folder = check_folder("folder", folder)
    check_positive("min_side", min_side)
    return _check_all(folder, min_side, workers)[1]


def check_pairs(blurred: Path, sharp: Path, *, min_side: int = 1, workers: int = 0) -> list[Finding]:
    """Tell what is odd about blurred faces, about their ground truths, and then about the pairs.

    Pairs are those of :func:`pair_by_name`. As FaceDeblurTestDataset does, what can't be used is refused with the whole
    set. Raises UserError where a folder is missing or holds no image.
    """
    folders = [check_folder("folder", blurred), check_folder("--gt", sharp)]
    check_positive("min_side", min_side)
    (lq, lq_findings), (gt, gt_findings) = (_check_all(folder, min_side, workers) for folder in folders)
    findings = [
        replace(finding, consequence=finding.consequence.replace(SKIPPED, REFUSED))
        for finding in [*lq_findings, *gt_findings]
    ]
    return findings + _mismatched(folders[0], folders[1], lq, gt)


def summarise(findings: Sequence[Finding]) -> list[str]:
    """Return lines to print: one for all files with which training does the same, with their number and names.

    What can't be used comes last; where the consequence names sizes or other files, each has its own line.
    """
    groups: dict[tuple[bool, str, str], list[str]] = {}
    for finding in findings:
        groups.setdefault((finding.usable, finding.kind, finding.consequence), []).append(str(finding.path))
    return [
        f"{kind} ({len(paths)}), {consequence}: {list_some(paths)}"
        for (_, kind, consequence), paths in sorted(groups.items(), key=lambda group: not group[0][0])
    ] or ["nothing odd"]


def _check_all(folder: Path, min_side: int, workers: int) -> tuple[dict[str, _Checked], list[Finding]]:
    """Return what was found of each image below a folder, and all findings in the order of their paths."""
    listing = look_for_images(folder)
    task, paths = partial(_check, min_side=min_side), [folder / name for name in listing.names]
    with Pool(workers) if workers else nullcontext() as pool:
        results = map(task, paths) if pool is None else pool.imap(task, paths, chunksize=16)
        progress = tqdm(results, desc=folder.name, unit="image", total=len(paths))
        checked = dict(zip(listing.names, progress, strict=True))
    findings = [finding for found in checked.values() for finding in found.findings]
    findings += [Finding(folder / name, "ignored", f"ignored: {why}", False) for name, why in listing.left_out.items()]
    return checked, sorted(findings, key=lambda finding: finding.path)


def _check(path: Path, min_side: int) -> _Checked:
    try:
        content = path.read_bytes()
        image = decode_image(content, str(path))
    except (UserError, OSError) as error:
        return _Checked((_unusable(path, error),))
    height, width = image.shape[:2]
    found = _oddities(content, image)
    if too_small := min(height, width) < min_side:
        found.append(("too small", f"{SKIPPED}{width}x{height} px, {min_side} px are needed"))
    return _Checked(tuple(Finding(path, *what, usable=not too_small) for what in found), (width, height))


def _unusable(path: Path, error: Exception) -> Finding:
    if isinstance(error, OSError):
        return Finding(path, "broken", f"{SKIPPED}can't be read ({error.strerror})", False)
    if isinstance(error, SeveralPagesError):
        return Finding(path, "several pages", f"{SKIPPED}several pages or frames", False)
    if isinstance(error.__cause__, (cv2.error, PillowImage.DecompressionBombError)):
        return Finding(path, "too large", f"{SKIPPED}more pixels than OpenCV or Pillow reads", False)
    content = path.read_bytes()
    if not content:
        return Finding(path, "broken", f"{SKIPPED}empty", False)
    if cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) is not None:  # so that is what was refused
        return Finding(path, "alpha", f"{SKIPPED}partly transparent", False)
    return Finding(path, "broken", f"{SKIPPED}not an image, or damaged", False)


def _oddities(content: bytes, image: Image) -> list[tuple[str, str]]:
    """Return (kind, consequence) of everything about a usable image that is not plain."""
    try:
        with open_head(content) as file:
            mode, kind, has_alpha = file.mode, file.format, "A" in file.getbands() or "transparency" in file.info
            rotated = file.getexif().get(ExifTags.Base.Orientation, UPRIGHT) != UPRIGHT
    except Exception:  # Pillow raises what comes; OpenCV, which has read the pixels, has the last word
        return []
    found = [
        (mode in GREY_MODES, "grey", "used as three equal channels"),
        (_is_deep(content, kind), "16-bit", "used, upper 8 of 16 bits"),
        (has_alpha, "alpha", "used, opaque alpha dropped"),
        (mode == "CMYK", "cmyk", "used, converted to RGB"),
        (mode in ("P", "PA"), "palette", "used, as the palette's colours"),
        (rotated, "exif rotation", "used, turned as EXIF says"),
    ]
    return [(what, consequence) for is_so, what, consequence in found if is_so]


def _is_deep(content: bytes, kind: str | None) -> bool:
    if kind == "PNG":
        return content[PNG_DEPTH] == DEEP
    if kind not in ("TIFF", "PPM"):
        return False
    raw = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)  # Pillow calls these RGB too
    return raw is not None and raw.dtype == np.uint16


def _mismatched(blurred: Path, sharp: Path, lq: dict[str, _Checked], gt: dict[str, _Checked]) -> list[Finding]:
    """Return what :func:`pair_by_name` and the dataset refuse of the pairs, blurred files first."""
    findings = []
    firsts = [_first_of_stem(list(files)) for files in (lq, gt)]
    for folder, files, first in ((blurred, lq, firsts[0]), (sharp, gt, firsts[1])):
        twins = [(name, first[PurePath(name).stem]) for name in files if first[PurePath(name).stem] != name]
        findings += [_mismatch(folder / name, f"same name as {twin}") for name, twin in twins]
    used: set[str] = set()
    for name, found in match_by_name(list(lq), list(firsts[1].values())).items():
        used.update(found)
        if not found:
            findings.append(_mismatch(blurred / name, "no ground truth"))
        elif len(found) > 1:
            findings.append(_mismatch(blurred / name, f"several ground truths: {', '.join(found)}"))
        elif (size := lq[name].size) and (other := gt[found[0]].size) and size != other:
            text = f"{size[0]}x{size[1]} px, its ground truth {found[0]} has {other[0]}x{other[1]} px"
            findings.append(_mismatch(blurred / name, text))
    unused = [name for name in firsts[1].values() if name not in used]
    return findings + [_mismatch(sharp / name, "no blurred file") for name in unused]


def _first_of_stem(names: Sequence[str]) -> dict[str, str]:
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(PurePath(name).stem, name)
    return first


def _mismatch(path: Path, why: str) -> Finding:
    return Finding(path, "mismatched", f"{REFUSED}{why}", False)
