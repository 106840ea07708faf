"""`basicsr prepare check`: find odd images in a data folder, and say what training does with each."""

from collections.abc import Iterable, Sequence
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
DEEP = 16  # bits per channel
PNG_DEPTH = 24  # the byte of a PNG that holds the bits per channel
SKIPPED = "skipped: "  # a training set leaves the image out
REFUSED = "refused, and the set with it: "  # FaceDeblurTestDataset can't be built
GREY_MODES = ("1", "L", "LA", "I;16", "I;16B", "I;16L", "I")


@dataclass(frozen=True)
class Finding:
    """One oddity of one file."""

    path: Path
    kind: str  # such as broken, ignored, several pages, grey, 16-bit, alpha, cmyk, palette, too small, mismatched
    consequence: str  # what training does with the file
    usable: bool  # whether training uses the file


@dataclass(frozen=True)
class _Examined:
    findings: tuple[Finding, ...]
    size: tuple[int, int] | None = None  # (width, height) as decoded; None if decoding fails


def check_images(folder: Path, *, min_side: int, workers: int = 0) -> list[Finding]:
    """Decode every image below ``folder`` and return what is odd, ordered by path.

    ``min_side`` (px) is the shorter side that the crops need. ``workers`` is the number of processes besides this one.
    An undamaged, opaque, upright RGB image of 8 bits and this side has no finding. Raises UserError if the folder is
    missing or has no image.
    """
    folder = check_folder("folder", folder)
    check_positive("min_side", min_side)
    return _examine_folder(folder, min_side, workers)[1]


def check_pairs(blurred: Path, sharp: Path, *, min_side: int = 1, workers: int = 0) -> list[Finding]:
    """Return what is odd about the blurred faces, then about their ground truths, then about the pairs.

    :func:`pair_by_name` makes the pairs. A file that can't be used has the consequence that FaceDeblurTestDataset
    refuses the whole set. Raises UserError if a folder is missing or has no image.
    """
    folders = [check_folder("folder", blurred), check_folder("--gt", sharp)]
    check_positive("min_side", min_side)
    (lq, lq_findings), (gt, gt_findings) = (_examine_folder(folder, min_side, workers) for folder in folders)
    findings = [
        replace(finding, consequence=finding.consequence.replace(SKIPPED, REFUSED))
        for finding in [*lq_findings, *gt_findings]
    ]
    return findings + _mismatched(folders[0], folders[1], lq, gt)


def summarise(findings: Sequence[Finding]) -> list[str]:
    """Return lines to print. Findings of the same kind and consequence share a line with their number and names.

    Files that can't be used come last. A consequence that names a size or another file usually has a line of its own.
    """
    groups: dict[tuple[bool, str, str], list[str]] = {}
    for finding in findings:
        groups.setdefault((finding.usable, finding.kind, finding.consequence), []).append(str(finding.path))
    usable_first = sorted(groups.items(), key=lambda group: not group[0][0])
    lines = [f"{kind} ({len(paths)}), {text}: {list_some(paths)}" for (_, kind, text), paths in usable_first]
    return lines or ["nothing odd"]


def _examine_folder(folder: Path, min_side: int, workers: int) -> tuple[dict[str, _Examined], list[Finding]]:
    """Examine each image below a folder. Return the results by name, and all findings ordered by path."""
    listing = look_for_images(folder)
    paths = [folder / name for name in listing.names]
    task = partial(_examine, min_side=min_side)
    with Pool(workers) if workers else nullcontext() as pool:
        results = map(task, paths) if pool is None else pool.imap(task, paths, chunksize=16)
        progress = tqdm(results, desc=folder.name, unit="image", total=len(paths))
        examined = dict(zip(listing.names, progress, strict=True))
    findings = [Finding(folder / name, "ignored", f"ignored: {why}", False) for name, why in listing.left_out.items()]
    for result in examined.values():
        findings += result.findings
    return examined, sorted(findings, key=lambda finding: finding.path)


def _examine(path: Path, min_side: int) -> _Examined:
    try:
        content = path.read_bytes()
        image = decode_image(content, str(path))
    except (UserError, OSError) as error:
        return _Examined((_unusable(path, error),))
    height, width = image.shape[:2]
    found = _oddities(content, image)
    is_large_enough = min(height, width) >= min_side
    if not is_large_enough:
        found.append(("too small", f"{SKIPPED}{width}x{height} px, {min_side} px are needed"))
    return _Examined(tuple(Finding(path, kind, text, is_large_enough) for kind, text in found), (width, height))


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
    # if OpenCV can decode the image, decode_image has refused it as transparent
    if cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) is not None:
        return Finding(path, "alpha", f"{SKIPPED}partly transparent", False)
    return Finding(path, "broken", f"{SKIPPED}not an image, or damaged", False)


def _oddities(content: bytes, image: Image) -> list[tuple[str, str]]:
    """Return (kind, consequence) for each oddity of an image that can be decoded."""
    try:
        with open_head(content) as file:
            mode, file_format = file.mode, file.format
            has_alpha = "A" in file.getbands() or "transparency" in file.info
            rotated = file.getexif().get(ExifTags.Base.Orientation, UPRIGHT) != UPRIGHT
    except Exception:  # Pillow raises many kinds of error; OpenCV has decoded the image, so it is usable
        return []
    found = [
        (mode in GREY_MODES, "grey", "used as three equal channels"),
        (_is_deep(content, file_format), "16-bit", "used, upper 8 of 16 bits"),
        (has_alpha, "alpha", "used, opaque alpha dropped"),
        (mode == "CMYK", "cmyk", "used, converted to RGB"),
        (mode in ("P", "PA"), "palette", "used, as the palette's colours"),
        (rotated, "exif rotation", "used, turned as EXIF says"),
    ]
    return [(kind, consequence) for is_so, kind, consequence in found if is_so]


def _is_deep(content: bytes, file_format: str | None) -> bool:
    if file_format == "PNG":
        return content[PNG_DEPTH] == DEEP
    if file_format not in ("TIFF", "PPM"):
        return False
    raw = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)  # Pillow's mode hides the depth
    return raw is not None and raw.dtype == np.uint16


def _mismatched(blurred: Path, sharp: Path, lq: dict[str, _Examined], gt: dict[str, _Examined]) -> list[Finding]:
    """Return what :func:`pair_by_name` or the data set refuses: equal names, then blurred files, then sharp files."""
    findings = []
    first_lq, first_gt = _first_of_stem(lq), _first_of_stem(gt)
    for folder, files, first_of_stem in ((blurred, lq, first_lq), (sharp, gt, first_gt)):
        for name in files:
            first = first_of_stem[PurePath(name).stem]
            if first != name:
                findings.append(_mismatch(folder / name, f"same name as {first}"))
    used: set[str] = set()
    for name, found in match_by_name(list(lq), list(first_gt.values())).items():
        used.update(found)
        if not found:
            findings.append(_mismatch(blurred / name, "no ground truth"))
        elif len(found) > 1:
            findings.append(_mismatch(blurred / name, f"several ground truths: {', '.join(found)}"))
        elif (size := lq[name].size) and (gt_size := gt[found[0]].size) and size != gt_size:
            text = f"{size[0]}x{size[1]} px, its ground truth {found[0]} has {gt_size[0]}x{gt_size[1]} px"
            findings.append(_mismatch(blurred / name, text))
    unused = [name for name in first_gt.values() if name not in used]
    return findings + [_mismatch(sharp / name, "no blurred file") for name in unused]


def _first_of_stem(names: Iterable[str]) -> dict[str, str]:
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(PurePath(name).stem, name)
    return first


def _mismatch(path: Path, why: str) -> Finding:
    return Finding(path, "mismatched", f"{REFUSED}{why}", False)
