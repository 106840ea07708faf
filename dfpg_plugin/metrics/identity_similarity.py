"""How similar a recogniser finds a restored face and the sharp face of the same person."""

import math
from collections.abc import Sequence

from basicsr.utils.registry import METRIC_REGISTRY
from numpy.typing import NDArray

from dfpg_plugin.metrics.images import checked_pair
from dfpg_plugin.metrics.recognisers import Landmarks, Recogniser, load_recogniser


def identity_similarity(restored: NDArray, sharp: NDArray, recogniser: Recogniser) -> float:
    """Return the cosine, in [-1,1], between the embeddings of two uint8 BGR images (H,W,3) of one face.

    Both images are aligned by the landmarks of the sharp one. The metric thus also measures a restored image in which
    no face would be found. Returns NaN unless exactly one face is found in the sharp image.
    """
    return identity_similarities([restored], [sharp], recogniser)[0]


def identity_similarities(restored: Sequence[NDArray], sharp: Sequence[NDArray], recogniser: Recogniser) -> list[float]:
    """Return :func:`identity_similarity` of each pair. A sharp image that occurs several times is embedded once."""
    known: dict[bytes, tuple[Landmarks, NDArray] | None] = {}
    values = []
    for image, reference in zip(restored, sharp, strict=True):
        key = reference.tobytes()
        if key not in known:
            faces = recogniser.find(reference)
            known[key] = (faces[0], recogniser.embed(reference, faces[0])) if len(faces) == 1 else None
        face = known[key]  # landmarks and embedding
        values.append(math.nan if face is None else float(recogniser.embed(image, face[0]) @ face[1]))
    return values


@METRIC_REGISTRY.register()
def calculate_identity_similarity(
    img: NDArray,
    img2: NDArray,
    recogniser: str = "dlib",
    weights: str | None = None,
    crop_border: int = 0,
    input_order: str = "HWC",
    better: str = "higher",
) -> float:
    """Return :func:`identity_similarity` of two uint8 images, as a metric of BasicSR's ``val.metrics``.

    ``recogniser`` and ``weights``: see :func:`load_recogniser`.
    """
    del better  # BasicSR's validation reads ``better`` from the options
    pair = checked_pair("calculate_identity_similarity", img, img2, crop_border, input_order)
    return identity_similarity(*pair, load_recogniser(recogniser, weights))
