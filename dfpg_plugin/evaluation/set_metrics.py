"""``val.set_metrics`` of the options: how many faces of a test set are found, and how many are verified (Table 3)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dfpg_plugin.checks import UserError, check_choice, check_fields, check_folder, check_keys
from dfpg_plugin.data.images import list_images, read_image
from dfpg_plugin.evaluation.records import PairDistance
from dfpg_plugin.metrics.face_sets import draw_pairs, read_pairs
from dfpg_plugin.metrics.recognisers import DLIB, load_recogniser

DETECTION, VERIFICATION = "detection_rate", "verification_accuracy"
Embedding = NDArray[np.float64] | None


@dataclass(frozen=True)
class DetectionOptions:
    """The keys of a set metric of type ``detection_rate``: the share of images in which any face is found."""

    recogniser: str = DLIB  # whose detector; or facexlib
    weights: str | None = None  # folder of facexlib's files


@dataclass(frozen=True)
class VerificationOptions:
    """The keys of a set metric of type ``verification_accuracy``: each image against photographs of sharp faces."""

    recogniser: str = DLIB
    weights: str | None = None
    photographs: str | None = None  # their folder; default: the set's own ground truths
    pairs: str | None = None  # a list of `image photograph 1`, 0 for two people; default: one of each kind is drawn
    identity: str | None = None  # regular expression: who is on a photograph, by its path; for drawing
    seed: int = 0  # of the drawing, and of the folds
    legacy_order: bool = False  # folds as in the published notebook

    def __post_init__(self) -> None:
        """Check that pairs come from one place, and that the expression is one."""
        if (self.pairs is None) == (self.identity is None):
            raise UserError(
                "val:set_metrics: verification_accuracy needs either pairs (a list) or identity (a regular expression "
                "that finds in a photograph's path who is on it)."
            )
        try:
            re.compile(self.identity or "")
        except re.error as error:
            raise UserError(f"val:set_metrics: identity: {self.identity!r} is no expression: {error}.") from error


SET_METRICS = {DETECTION: DetectionOptions, VERIFICATION: VerificationOptions}
SetOptions = DetectionOptions | VerificationOptions


def read_set_metrics(section: object) -> dict[str, SetOptions]:
    """Return the checked options of every set metric; raise UserError for what is wrong in them."""
    if not isinstance(section, Mapping):
        raise UserError(f"val:set_metrics: expected metrics by name, got {section!r}.")
    found = {}
    for key, given in section.items():
        where = f"val:set_metrics:{key}"
        if not isinstance(given, Mapping):
            raise UserError(f"{where}: expected options with a `type`, got {given!r}.")
        check_choice(f"{where}:type", given.get("type"), SET_METRICS)
        options = SET_METRICS[given["type"]]
        arguments = {name: value for name, value in given.items() if name not in ("type", "better")}
        check_keys(where, arguments, [field.name for field in fields(options)])
        check_fields(where, options, arguments)
        found[key] = options(**arguments)
    return found


def describe_set_metrics(metrics: Mapping[str, SetOptions]) -> dict[str, dict]:
    """Return what a manifest says of each: type, which way is better, settings, and the recogniser's name."""
    described = {}
    for key, options in metrics.items():
        recogniser = load_recogniser(options.recogniser, options.weights)
        described[key] = {
            "type": next(name for name, kind in SET_METRICS.items() if isinstance(options, kind)),
            "better": "higher",
            "of": "set",
            "settings": asdict(options),
            "uses": {"recogniser": recogniser.name, "weights_sha256": recogniser.weights_sha256},
        }
    return described


class Partners:
    """The photographs that a set's images are compared with, and which of them belong to an image."""

    def __init__(self, options: VerificationOptions, gt_root: Path, gt_names: Sequence[str]) -> None:
        """Find every photograph's embedding. ``gt_names``: the set's ground truths, below ``gt_root``.

        Raises UserError for photographs, lists and expressions that do not fit each other.
        """
        self.options = options
        if options.photographs is None:
            root, names = gt_root, sorted(gt_names)
        else:
            root = check_folder("val:set_metrics: photographs", options.photographs)
            names = list_images(root)
        self.listed: dict[str, list[tuple[str, bool]]] | None = None
        if options.pairs is not None:
            self.listed = {}
            for image, photograph, same in read_pairs(Path(options.pairs)):
                self.listed.setdefault(image, []).append((photograph, same))
            wanted = {photograph for partners in self.listed.values() for photograph, _ in partners}
            if missing := sorted(wanted - set(names)):
                raise UserError(f"{options.pairs}: {missing[0]} is not in {root} ({len(missing)} such photographs).")
            names = sorted(wanted)
        self.people = {} if options.identity is None else {name: self._person(name) for name in names}
        recogniser = load_recogniser(options.recogniser, options.weights)
        self.embeddings: dict[str, Embedding] = {
            name: recogniser.embed_only_face(read_image(root / name)) for name in names
        }

    def of(self, name: str, gt: str) -> list[tuple[str, bool]]:
        """Return (photograph, whether the same person) for an image; a list may leave it out.

        Raises UserError where nobody else, or no other photograph of the person, is there.
        """
        if self.listed is not None:
            return next((self.listed[key] for key in (name, f"{name}.png") if key in self.listed), [])
        drawn = draw_pairs({name: gt}, self.people, {name: self._person(gt)}, self.options.seed)
        return [(photograph, same) for _, photograph, same in drawn]

    def distances(self, name: str, gt: str, own: Embedding) -> list[PairDistance]:
        """Return the squared distance of an image's embedding to each partner's; None where either has no face."""
        rows: list[PairDistance] = []
        for photograph, same in self.of(name, gt):
            other = self.embeddings[photograph]
            distance = None if own is None or other is None else float(np.sum((own - other) ** 2))
            rows.append((photograph, distance, same))
        return rows

    def _person(self, name: str) -> str:
        found = re.search(self.options.identity or "", name)
        if found is None:
            raise UserError(
                f"val:set_metrics: identity: {self.options.identity!r} finds nobody in the photograph's path {name}."
            )
        return found[1] if found.re.groups else found[0]
