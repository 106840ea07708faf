"""How to restore, and what is said of each face."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import isfinite

from dfpg_plugin.checks import UserError, check_choice, check_share
from dfpg_plugin.speed.acceleration import PRECISIONS

ALIGNED, PHOTO = "aligned", "photo"
MODES = (PHOTO, ALIGNED)
FACEXLIB = "facexlib"  # the only detector with weights of its own
OF_DETECTION = ("detector", "detector_weights", "threshold", "passes")
OF_PHOTOS = (*OF_DETECTION, "boxes", "face_size", "batch_size")


@dataclass
class Settings:
    """How to restore."""

    mode: str = PHOTO  # find faces; or aligned: the picture is a face
    detector: str = "centerface"  # or dlib, facexlib
    detector_weights: str | None = None  # the folder of facexlib's
    boxes: Sequence[tuple[float, float, float, float]] = ()  # of faces, by hand: left, top, right, bottom in px
    threshold: float | None = None  # of the detector's score from which a face is one; None: the detector's own
    passes: int = 2  # of detection: 2 looks at faces just below the threshold again when they are restored; 1 does not
    strength: float = 1.0  # the part of the change that is applied: 0 leaves the picture as it is
    face_size: int = 128  # px, of the square that the network sees
    batch_size: int = 8
    device: str = "auto"
    amp: str | None = None  # bfloat16 or float16
    recogniser: str | None = "dlib"  # tells how much of the identity changed; None: nobody does

    def __post_init__(self) -> None:
        """Raise UserError for what is out of range, and for what has no effect beside another setting."""
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
        if found := first_idle([*given, *(["boxes"] if self.boxes else [])], self.mode, self.detector):
            idle, other = found
            beside = other if other == "boxes" else f"{other}: {getattr(self, other)}"
            raise UserError(f"{idle}: has no effect with {beside}. Remove one of them.")


def first_idle(given: Collection[str], mode: str, detector: str) -> tuple[str, str] | None:
    """Return the first setting of those ``given`` that has no effect, and which other one is why; None where all have.

    A picture of mode ``aligned`` is one face: nothing is searched, and its size stays. Boxes replace the search.
    """
    idle = [(name, "mode") for name in OF_PHOTOS if mode == ALIGNED]
    idle += [(name, "boxes") for name in OF_DETECTION if "boxes" in given]
    idle += [("detector_weights", "detector")] if detector != FACEXLIB else []
    return next((pair for pair in idle if pair[0] in given), None)


@dataclass
class FaceReport:
    """What was done to a face."""

    box: tuple[float, float, float, float]  # left, top, right, bottom, px
    score: float | None  # the detector's; None: no detector was asked
    landmarks: list[list[float]] | None = None  # x, y of eyes, nose and mouth corners, px; None: the box alone decided
    seconds: float = 0.0  # of the network, its share of a batch
    identity_change: float | None = None  # 1 - cosine of the recogniser's vectors before and after; None: no face found
    error: str | None = None  # why it was left as it is
