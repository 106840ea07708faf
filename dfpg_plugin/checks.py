"""Checks of shapes, ranges, choices and files, and the one error type for a user's mistakes."""

import difflib
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

LEAST_SIDES = {"calculate_ssim": 11}  # px, the window of a metric; BasicSR's SSIM does not check it


class UserError(ValueError):
    """Something the user can mend. The message is one line: which file or key, what is wrong, what to do.

    The ``basicsr`` command prints it without a traceback and exits with status 2.
    """


def where_raised(error: BaseException) -> str:
    """Return the file and line that raised an error: the last call in a file that is not torch's."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "torch" not in Path(frame.filename).parts]
    last = (own or frames)[-1]
    return f"{Path(last.filename).name}, line {last.lineno}"


def close_names(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean A or B?"`` for the known names nearest to ``name``, or an empty string."""
    known = sorted(known)
    lowered = {k.lower(): k for k in known}
    near = difflib.get_close_matches(str(name).lower(), lowered, n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(lowered[n] for n in near)}?" if near else ""


def check_choice(key: str, value: object, choices: Iterable[object]) -> None:
    """Raise :class:`UserError`, with the nearest names, unless ``value`` is one of ``choices``."""
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
    """Make a folder and those above it. Raises :class:`UserError` if that is impossible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{key}: can't make the folder {path} ({error.strerror}). Name another one.") from error


def check_feature_maps(name: str, features: object) -> None:
    """Raise :class:`UserError` unless an extractor of the class ``name`` returned a list of maps (B,C,H,W)."""
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
    """Raise :class:`UserError` if ``crop_border`` leaves too little of an image. BasicSR's metrics would give NaN."""
    border, least = metric.get("crop_border") or 0, LEAST_SIDES.get(str(metric["type"]), 1)
    if min(height, width) - 2 * border < least:
        raise UserError(
            f"val:metrics: {metric['type']}: crop_border: {border} leaves less than {least} px of an image of "
            f"{width}x{height} px. Lower it, or leave such images out."
        )
