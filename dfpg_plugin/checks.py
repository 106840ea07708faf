"""Checks of shapes, ranges, choices and files, and the one error type for a user's mistakes."""

import difflib
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

LEAST_SIDES = {"calculate_ssim": 11}  # metric: the side of its window in px, which BasicSR's function does not check
NIQE, NIQE_BLOCK = "calculate_niqe", 96  # NIQE compares blocks of so many px with each other
LOWER_IS_BETTER = {NIQE}  # metrics of BasicSR; its functions do not say which direction is better


class UserError(ValueError):
    """A mistake that the user can mend. The message names the file or key, the mistake, and what to do.

    The ``basicsr`` command prints the message without a traceback and exits with status 2.
    """


def where_raised(error: BaseException) -> str:
    """Return where an error was raised, such as ``edsr_arch.py, line 52``: the last call outside torch's files."""
    frames = traceback.extract_tb(error.__traceback__)
    outside_torch = [frame for frame in frames if "torch" not in Path(frame.filename).parts]
    last = (outside_torch or frames)[-1]
    return f"{Path(last.filename).name}, line {last.lineno}"


def close_names(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean A or B?"`` with the known names nearest to ``name``, or an empty string."""
    known = sorted(known)
    lowered = {k.lower(): k for k in known}
    near = difflib.get_close_matches(str(name).lower(), lowered, n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(lowered[n] for n in near)}?" if near else ""


def check_choice(key: str, value: object, choices: Iterable[object]) -> None:
    """Raise :class:`UserError`, with the choices nearest to ``value``, unless ``value`` is one of ``choices``."""
    choices = list(choices)
    if value not in choices:
        names = [str(choice) for choice in choices]
        raise UserError(f"{key}: {value!r} is not one of {', '.join(names)}.{close_names(str(value), names)}")


def check_keys(key: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise :class:`UserError` for the first of ``given`` that is not in ``known``."""
    known = set(known)
    for name in given:
        if name not in known:
            raise UserError(
                f"{key}: unknown key {name!r}.{close_names(name, known)} Known keys: {', '.join(sorted(known))}."
            )


def check_file(key: str, path: str | Path) -> Path:
    """Return ``path`` with ``~`` expanded; raise :class:`UserError` unless it is a file."""
    path = Path(path).expanduser()
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else f"does not exist (working directory: {Path.cwd()})"
        raise UserError(f"{key}: {path} {what}.")
    return path


def check_folder(key: str, path: str | Path) -> Path:
    """Return ``path`` with ``~`` expanded; raise :class:`UserError` unless it is a folder."""
    path = Path(path).expanduser()
    if not path.is_dir():
        what = "is a file, not a folder" if path.is_file() else f"does not exist (working directory: {Path.cwd()})"
        raise UserError(f"{key}: the folder {path} {what}. Create it, or set {key} to where the data lie.")
    return path


def make_folder(key: str, path: Path) -> None:
    """Make a folder and the folders above it. Raises :class:`UserError` if a folder can't be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{key}: can't make the folder {path} ({error.strerror}). Name another one.") from error


def check_feature_maps(name: str, features: object) -> None:
    """Raise :class:`UserError` unless ``features``, from the class ``name``, are a list of maps (B,C,H,W)."""
    if not isinstance(features, Sequence) or not all(getattr(feature, "ndim", 0) == 4 for feature in features):
        raise UserError(
            f"network_prior: {name} returns no list of feature maps (B,C,H,W), but {type(features).__name__}. Use an "
            "extractor, such as VGGFaceFeatureExtractor."
        )


def check_share(key: str, value: object) -> None:
    """Raise :class:`UserError` unless ``value`` is a number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UserError(f"{key}: expected a number from 0 to 1, got {value!r}.")


def check_positive(key: str, value: object) -> None:
    """Raise :class:`UserError` unless ``value`` is a number above zero."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise UserError(f"{key}: expected a number above 0, got {value!r}.")


def check_border(metric: Mapping, height: int, width: int) -> None:
    """Raise :class:`UserError` if a metric's ``crop_border`` leaves too little of an image (height x width, in px).

    BasicSR's metrics would return NaN.
    """
    border, kind = metric.get("crop_border") or 0, str(metric["type"])
    least, inside = LEAST_SIDES.get(kind, 1), (height - 2 * border, width - 2 * border)
    blocks = [max(0, side) // NIQE_BLOCK for side in inside]
    is_too_small = blocks[0] * blocks[1] < 2 if kind == NIQE else min(inside) < least
    if is_too_small:
        too_little = f"two blocks of {NIQE_BLOCK}" if kind == NIQE else str(least)
        raise UserError(
            f"val:metrics: {kind}: crop_border: {border} leaves less than {too_little} px of an image of "
            f"{width}x{height} px. Lower it, or leave out such images or this metric."
        )
