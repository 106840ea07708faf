"""The settings of a restoration, and the report of a face."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import isfinite

from dfpg_plugin.checks import UserError, check_choice, check_share
from dfpg_plugin.speed.acceleration import PRECISIONS

ALIGNED, PHOTO = "aligned", "photo"
MODES = (PHOTO, ALIGNED)
FACEXLIB = "facexlib"  # the only detector that takes detector_weights
OF_DETECTION = ("detector", "detector_weights", "threshold", "passes")  # have no effect if nothing is searched
OF_PHOTOS = (*OF_DETECTION, "boxes", "face_size", "batch_size")  # have no effect in mode `aligned`


@dataclass
class Settings:
    """How :class:`DFPGRestorer` restores pictures."""

    mode: str = PHOTO  # photo: the faces of a picture are found; aligned: the whole picture is one face
    detector: str = "centerface"  # or dlib, facexlib
    detector_weights: str | None = None  # folder of facexlib's file; None: where facexlib keeps the file
    boxes: Sequence[tuple[float, float, float, float]] = ()  # faces given by hand: left, top, right, bottom in px
    threshold: float | None = None  # a detector's score of at least this means a face; None: the detector's own
    passes: int = 2  # of detection; 2: a face just below the threshold is restored and searched again; 1: it is not
    strength: float = 1.0  # the part of the change that is applied, 0 to 1; 0 leaves the picture as it is
    face_size: int = 128  # px, side of the square that the network gets
    batch_size: int = 8  # faces that are restored at a time
    device: str = "auto"  # or cpu, cuda, cuda:N; auto: a GPU if there is one
    amp: str | None = None  # bfloat16 or float16; None: single precision
    recogniser: str | None = "dlib"  # or facexlib; measures how much a face's identity changes; None: no measurement

    def __post_init__(self) -> None:
        """Raise UserError for a value out of range, and for a setting that has no effect beside another one."""
        self.boxes = tuple(map(_checked_box, self.boxes))
        check_choice("mode", self.mode, MODES)
        check_choice("amp", self.amp, (None, *PRECISIONS))
        check_choice("passes", self.passes, (1, 2))
        if self.threshold is not None and not isfinite(self.threshold):
            raise UserError(f"threshold: expected a number, got {self.threshold}.")
        for name in ("face_size", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: expected a whole number from 1, got {getattr(self, name)}.")
        check_share("strength", self.strength)
        given = [name for name, value in vars(self).items() if name != "boxes" and value != getattr(Settings, name)]
        if self.boxes:
            given.append("boxes")
        if found := first_idle(given, self.mode, self.detector):
            idle, other = found
            beside = other if other == "boxes" else f"{other}: {getattr(self, other)}"
            raise UserError(f"{idle}: has no effect with {beside}. Remove one of them.")


def _checked_box(box: Sequence[float]) -> tuple[float, float, float, float]:
    """Return a box of any four numbers as floats. Raises UserError for a box that has no size."""
    try:
        left, top, right, bottom = map(float, box)
    except (TypeError, ValueError):
        raise UserError(f"boxes: expected left, top, right and bottom in px, got {box}.") from None
    if not all(map(isfinite, (left, top, right, bottom))) or not (left < right and top < bottom):
        raise UserError(f"boxes: expected finite numbers, left < right and top < bottom, got {box}.")
    return left, top, right, bottom


def first_idle(given: Collection[str], mode: str, detector: str) -> tuple[str, str] | None:
    """Return the first ``given`` setting without effect, and the setting that is the reason: ``("passes", "boxes")``.

    Return None if every given setting has an effect. In mode ``aligned`` the picture is one face: nothing is searched,
    and the face keeps its size. ``boxes`` replace the search. ``detector_weights`` are for facexlib alone.
    """
    idle: list[tuple[str, str]] = []
    if mode == ALIGNED:
        idle += [(name, "mode") for name in OF_PHOTOS]
    if "boxes" in given:
        idle += [(name, "boxes") for name in OF_DETECTION]
    if detector != FACEXLIB:
        idle.append(("detector_weights", "detector"))
    return next((pair for pair in idle if pair[0] in given), None)


@dataclass
class FaceReport:
    """What was done to a face."""

    box: tuple[float, float, float, float]  # left, top, right, bottom, px
    score: float | None  # the detector's; None: no detector was used
    landmarks: list[list[float]] | None = None  # x, y of eyes, nose and mouth corners, px; None: only a box is known
    seconds: float = 0.0  # of the network: an equal share of the time that all faces of the picture took
    identity_change: float | None = None  # 1 - cosine of the recogniser's vectors before and after; None: not measured
    error: str | None = None  # why the face was left as it was
