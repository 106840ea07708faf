"""``val.set_metrics`` of the options: how many faces of a test set are found, and how many are verified (Table 3)."""

import hashlib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from dfpg_plugin.checks import UserError, check_choice, check_file, check_folder
from dfpg_plugin.data.images import list_images, read_image
from dfpg_plugin.evaluation.records import PairDistance
from dfpg_plugin.files import sha256_of
from dfpg_plugin.metrics.face_sets import draw_pairs, read_pairs
from dfpg_plugin.metrics.recognisers import DLIB, load_recogniser
from dfpg_plugin.options.section import Expected, From0, Key, Section, Text, YesOrNo

DETECTION, VERIFICATION = "detection_rate", "verification_accuracy"
HIGHER = "higher"
Partner = tuple[str, bool, int]  # a photograph, whether it shows the same person, place among all pairs
Embedding = NDArray[np.float64] | None


RecogniserName = Annotated[Literal["dlib", "facexlib"], Expected("dlib or facexlib")]


class DetectionOptions(Section):
    """The share of images in which any face is found."""

    recogniser: RecogniserName = Key(DLIB, "Whose detector finds the faces: dlib or facexlib.")
    weights: Text | None = Key(None, "The folder of facexlib's files.")


class VerificationOptions(DetectionOptions):
    """Whether a face is recognised: each image is compared with photographs of sharp faces."""

    photographs: Text | None = Key(None, "The folder of the photographs. By default the set's own ground truths.")
    pairs: Text | None = Key(None, "A list of `image photograph 1`, or 0 for two people. By default pairs are drawn.")
    identity: Text | None = Key(None, "A regular expression that finds in a photograph's path who is on it.")
    seed: From0 = Key(0, "The seed of the drawing, and of the folds.")
    legacy_order: YesOrNo = Key(False, "Whether the folds are those of the published notebook.")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if (self.pairs is None) == (self.identity is None):
            raise UserError(
                "verification_accuracy needs either pairs (a list) or identity (a regular expression that finds in a "
                "photograph's path who is on it)."
            )
        try:
            re.compile(self.identity or "")
        except re.error as error:
            raise UserError(f"identity: {self.identity!r} is no expression: {error}.") from error
        return self


SET_METRICS: dict[str, type[DetectionOptions]] = {DETECTION: DetectionOptions, VERIFICATION: VerificationOptions}
SetOptions = DetectionOptions | VerificationOptions


def read_set_metrics(section: object, image_metrics: Collection[str] = ()) -> dict[str, SetOptions]:
    """Return the checked options of every set metric; raise UserError for what is wrong in them.

    ``image_metrics``: the keys that are taken.
    """
    if not isinstance(section, Mapping):
        raise UserError(f"val:set_metrics: expected metrics by name, got {section!r}.")
    found = {}
    for key, given in section.items():
        where = f"val:set_metrics:{key}"
        if not isinstance(given, Mapping):
            raise UserError(f"{where}: expected options with a `type`, got {given!r}.")
        check_choice(f"{where}:type", given.get("type"), SET_METRICS)
        check_choice(f"{where}:better", given.get("better", HIGHER), (HIGHER,))
        if key in image_metrics:
            raise UserError(f"{where}: val:metrics has a metric of that name, too. Rename one.")
        options = SET_METRICS[given["type"]]
        arguments = {name: value for name, value in given.items() if name not in ("type", "better")}
        found[key] = options.read(where, arguments, only_these=True)
    return found


def describe_set_metrics(metrics: Mapping[str, SetOptions]) -> dict[str, dict]:
    """Return what a manifest says of each: type, which way is better, settings, and the recogniser's name."""
    described = {}
    for key, options in metrics.items():
        recogniser = load_recogniser(options.recogniser, options.weights)
        described[key] = {
            "type": next(name for name, kind in SET_METRICS.items() if type(options) is kind),
            "better": HIGHER,
            "of": "set",
            "settings": options.model_dump(),
            "uses": {
                "recogniser": recogniser.name,
                "weights_sha256": recogniser.weights_sha256,
                **_digests(options),
            },
        }
    return described


def _digests(options: SetOptions) -> dict[str, str]:
    """Return what the files behind an option's paths hold, so that another file under the same path is noticed."""
    if not isinstance(options, VerificationOptions):
        return {}
    found = {} if options.pairs is None else {"pairs_sha256": sha256_of(check_file("pairs", options.pairs))}
    if options.photographs is not None:
        root = check_folder("val:set_metrics: photographs", options.photographs)
        digests = "".join(f"{name} {sha256_of(root / name)}" for name in list_images(root))
        found["photographs_sha256"] = hashlib.sha256(os.fsencode(digests)).hexdigest()
    return found


class Partners:
    """The photographs that a set's images are compared with, and which of them belong to an image."""

    def __init__(
        self, options: VerificationOptions, gt_root: Path, gt_names: Sequence[str], names: Sequence[str]
    ) -> None:
        """Find every photograph's embedding.

        ``gt_names``: the set's ground truths, below ``gt_root``; ``names``: its blurred images, where they are known.
        Raises UserError for photographs, lists and expressions that do not fit each other.
        """
        self.options = options
        if options.photographs is None:
            root, photographs = gt_root, sorted(gt_names)
        else:
            root = check_folder("val:set_metrics: photographs", options.photographs)
            photographs = list_images(root)
        self.listed: dict[str, list[Partner]] | None = None
        if options.pairs is not None:
            self.listed = self._read_list(options.pairs, names)
            wanted = {photograph for partners in self.listed.values() for photograph, _, _ in partners}
            if missing := sorted(wanted - set(photographs)):
                raise UserError(f"{options.pairs}: {missing[0]} is not in {root} ({len(missing)} such photographs).")
            photographs = sorted(wanted)
        self.people = {} if options.identity is None else {name: self._person(name) for name in photographs}
        if options.identity is not None and not any(self.of(name, name) for name in gt_names):
            raise UserError(
                f"val:set_metrics: identity: {options.identity!r} finds in {root}, for none of {len(gt_names)} sharp "
                "faces, another photograph of the same person and one of somebody else."
            )
        recogniser = load_recogniser(options.recogniser, options.weights)
        self.embeddings: dict[str, Embedding] = {
            name: recogniser.embed_only_face(read_image(root / name)) for name in photographs
        }

    def of(self, name: str, gt: str) -> list[Partner]:
        """Return an image's partners. Of drawn pairs, those of one person come first.

        There are none where a list leaves the image out, and where no other photograph shows the person.
        """
        if self.listed is not None:
            return self.listed.get(name, [])
        drawn = draw_pairs({name: gt}, self.people, {name: self._person(gt)}, self.options.seed)
        return [(photograph, same, 1 - same) for _, photograph, same in drawn]

    def distances(self, name: str, gt: str, own: Embedding) -> list[PairDistance]:
        """Return the squared distance of an image's embedding to each partner's; None where either has no face."""
        rows: list[PairDistance] = []
        for photograph, same, place in self.of(name, gt):
            other = self.embeddings[photograph]
            distance = None if own is None or other is None else float(np.sum((own - other) ** 2))
            rows.append((photograph, distance, same, place))
        return rows

    @staticmethod
    def _read_list(path: str, names: Sequence[str]) -> dict[str, list[Partner]]:
        """Return the partners of each image by its name without the extension, which a list may give or leave out."""
        listed: dict[str, list[Partner]] = {}
        known = set(names)
        for place, (image, photograph, same) in enumerate(read_pairs(Path(path))):
            name = image if image in known else Path(image).stem
            if known and name not in known:
                raise UserError(f"{path}: {image} is no image of the test set. Correct the list, or remove the line.")
            listed.setdefault(name, []).append((photograph, same, place))
        return listed

    def _person(self, name: str) -> str:
        found = re.search(self.options.identity or "", name)
        if found is None:
            raise UserError(
                f"val:set_metrics: identity: {self.options.identity!r} finds nobody in the photograph's path {name}."
            )
        return found[1] if found.re.groups else found[0]
