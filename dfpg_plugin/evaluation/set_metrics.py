"""``val.set_metrics``: how many faces of a test set are found, and how many are verified (Table 3 of the paper)."""

import hashlib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator
from typing_extensions import Self

from dfpg_plugin.checks import UserError, check_choice, check_file, check_folder
from dfpg_plugin.data.images import list_images, read_image
from dfpg_plugin.evaluation.records import PairDistance
from dfpg_plugin.files import sha256_of
from dfpg_plugin.metrics.face_sets import draw_pairs, read_pairs
from dfpg_plugin.metrics.recognisers import DLIB, load_recogniser
from dfpg_plugin.metrics.verification import MAX_THRESHOLD
from dfpg_plugin.options.section import Expected, From0, Key, Section, Text, YesOrNo

DETECTION, VERIFICATION = "detection_rate", "verification_accuracy"
HIGHER = "higher"
Embedding = NDArray[np.float64] | None  # None unless exactly one face is found


class Partner(NamedTuple):
    """A photograph that an image is compared with."""

    photograph: str
    is_same: bool  # whether the photograph shows the image's person
    place: int  # among all pairs of a list; for drawn pairs, 0 for the same person and 1 for another person


RecogniserName = Annotated[Literal["dlib", "facexlib"], Expected("dlib or facexlib")]
LEFT_OUT = "left_out"
Unfound = Annotated[Literal["left_out", "no_match"], Expected("left_out or no_match")]


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
    unfound: Unfound = Key(
        LEFT_OUT, "An image in which not exactly one face is found is left_out, or counts as no_match."
    )
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
    """Return the checked options of every set metric, by key. Raises UserError for the first mistake.

    ``image_metrics``: the keys of ``val.metrics``. A set metric must have another key.
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
    """Return the manifest's record of each metric: type, better direction, settings, recogniser, digests."""
    described = {}
    for key, options in metrics.items():
        recogniser = load_recogniser(options.recogniser, options.weights)
        described[key] = {
            "type": next(name for name, kind in SET_METRICS.items() if type(options) is kind),
            "better": HIGHER,
            "of": "set",
            "settings": _settings(options),
            "uses": {
                "recogniser": recogniser.name,
                "weights_sha256": recogniser.weights_sha256,
                **_digests(options),
            },
        }
    return described


def _settings(options: SetOptions) -> dict:
    """Return the settings as older results have them, which know no ``unfound``, so that both can be compared."""
    settings = options.model_dump()
    if settings.get("unfound") == LEFT_OUT:
        del settings["unfound"]
    return settings


def _digests(options: SetOptions) -> dict[str, str]:
    """Return digests of the files that the options name. A digest shows if a file under the same path has changed."""
    if not isinstance(options, VerificationOptions):
        return {}
    found = {} if options.pairs is None else {"pairs_sha256": sha256_of(check_file("pairs", options.pairs))}
    if options.photographs is not None:
        root = check_folder("val:set_metrics: photographs", options.photographs)
        digests = "".join(f"{name} {sha256_of(root / name)}" for name in list_images(root))
        found["photographs_sha256"] = hashlib.sha256(os.fsencode(digests)).hexdigest()
    return found


class Partners:
    """The photographs that a set's images are compared with, and their embeddings."""

    def __init__(
        self,
        options: VerificationOptions,
        gt_root: Path,
        gt_names: Sequence[str],
        names: Sequence[str],
        embedded: dict[tuple, Embedding],
    ) -> None:
        """Compute the embedding of every photograph that is needed.

        ``gt_names``: paths of the set's sharp faces below ``gt_root``. ``names``: the set's blurred images without
        extension; empty if unknown. ``embedded``: what other metrics have computed; new embeddings
        are added. Raises UserError if photographs, list and expression do not fit together.
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
            wanted = {partner.photograph for partners in self.listed.values() for partner in partners}
            if missing := sorted(wanted - set(photographs)):
                raise UserError(f"{options.pairs}: {missing[0]} is not in {root} ({len(missing)} such photographs).")
            photographs = sorted(wanted)
        self.people = {} if options.identity is None else {name: self._person(name) for name in photographs}
        if options.identity is not None and not any(self.partners_of(name, name) for name in gt_names):
            raise UserError(
                f"val:set_metrics: identity: {options.identity!r} finds no pair in {root} for {len(gt_names)} sharp "
                "faces. A face needs another photograph of the same person and one of somebody else."
            )
        self.embeddings = {name: self._embedding(root / name, embedded) for name in photographs}

    def partners_of(self, name: str, gt: str) -> list[Partner]:
        """Return the photographs to compare an image with.

        ``gt``: path of the image's sharp face. Drawn pairs are one photograph of the same person, then one of another
        person. The list is empty if the file of pairs does not name the image, or if no pair can be drawn.
        """
        if self.listed is not None:
            return self.listed.get(name, [])
        drawn = draw_pairs({name: gt}, self.people, {name: self._person(gt)}, self.options.seed)
        return [Partner(photograph, is_same, place=int(not is_same)) for _, photograph, is_same in drawn]

    def distances(self, name: str, gt: str, own: Embedding) -> list[PairDistance]:
        """Return the squared distance between an image's embedding, ``own``, and each partner's embedding.

        A distance is None if the photograph's embedding is None. If ``own`` is None, the distance is None as well, or,
        with ``unfound: no_match``, 4: the greatest squared distance of unit vectors. Every threshold is below 4, so
        that such a pair is judged to show two people.
        """
        rows = []
        for partner in self.partners_of(name, gt):
            distance = self._distance(own, self.embeddings[partner.photograph])
            rows.append(PairDistance(partner.photograph, distance, partner.is_same, partner.place))
        return rows

    def _embedding(self, path: Path, embedded: dict[tuple, Embedding]) -> Embedding:
        key = (self.options.recogniser, self.options.weights, path)
        if key not in embedded:
            embedded[key] = load_recogniser(*key[:2]).embed_only_face(read_image(path))
        return embedded[key]

    def _distance(self, own: Embedding, other: Embedding) -> float | None:
        if other is None or (own is None and self.options.unfound == LEFT_OUT):
            return None
        return MAX_THRESHOLD if own is None else float(np.sum((own - other) ** 2))

    @staticmethod
    def _read_list(path: str, names: Sequence[str]) -> dict[str, list[Partner]]:
        """Return each image's partners by the image's name without extension. The list may name the extension."""
        listed: dict[str, list[Partner]] = {}
        known = set(names)
        for place, (image, photograph, is_same) in enumerate(read_pairs(Path(path))):
            name = image if image in known else Path(image).stem
            if known and name not in known:
                raise UserError(f"{path}: {image} is no image of the test set. Correct the list, or remove the line.")
            listed.setdefault(name, []).append(Partner(photograph, is_same, place))
        return listed

    def _person(self, name: str) -> str:
        found = re.search(self.options.identity or "", name)
        if found is None:
            raise UserError(
                f"val:set_metrics: identity: {self.options.identity!r} finds nobody in the photograph's path {name}."
            )
        return found[1] if found.re.groups else found[0]
