"""How much a recogniser takes a restored face for the same person's as the sharp one."""

import math
from collections.abc import Sequence

from basicsr.utils.registry import METRIC_REGISTRY
from numpy.typing import NDArray

from dfpg_plugin.metrics.images import checked_pair
from dfpg_plugin.metrics.recognisers import Recogniser, load_recogniser


def identity_similarity(restored: NDArray, sharp: NDArray, recogniser: Recogniser) -> float:
    """Return the cosine, in [-1,1], between the embeddings of two uint8 BGR images (H,W,3) of one face.

    Both are aligned by the landmarks of the sharp one, so that a face that is not found in the restored image is
    measured as well. NaN where the sharp image does not show exactly one face.
    """
    return identity_similarities([restored], [sharp], recogniser)[0]


def identity_similarities(restored: Sequence[NDArray], sharp: Sequence[NDArray], recogniser: Recogniser) -> list[float]:
    """Return :func:`identity_similarity` of each pair; a sharp image that comes several times is looked at once."""
    known: dict[bytes, tuple] = {}
    values = []
    for image, reference in zip(restored, sharp, strict=True):
        key = reference.tobytes()
        if key not in known:
            faces = recogniser.find(reference)
            known[key] = (faces[0], recogniser.embed(reference, faces[0])) if len(faces) == 1 else ()
        values.append(float(recogniser.embed(image, known[key][0]) @ known[key][1]) if known[key] else math.nan)
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
    del better  # BasicSR's loop reads it
    pair = checked_pair("calculate_identity_similarity", img, img2, crop_border, input_order)
    return identity_similarity(*pair, load_recogniser(recogniser, weights))
