"""The means that the log shows after an evaluation."""

import numpy as np
import pytest

from dfpg_plugin.evaluation.records import PairDistance, Record
from dfpg_plugin.evaluation.set_metrics import VerificationOptions
from dfpg_plugin.evaluation.summary import _summary
from dfpg_plugin.metrics.verification import verify


def test_each_mean_is_that_of_the_images_that_have_a_value() -> None:
    values = [
        {"psnr": 20.0, "lpips": 0.5}, {"psnr": 30.0, "lpips": None}, {"psnr": 40.0, "lpips": None},
        {"psnr": None, "lpips": 0.1}, {"psnr": 50.0, "lpips": None},
    ]  # fmt: skip
    records = [Record(i, f"f{i}", "", None, "", of_image) for i, of_image in enumerate(values)]
    records.insert(2, Record(9, "lost", "", None, "", problem="missing"))
    assert _summary("S", records, {}) == [
        "Validation S",
        "\t # psnr: 35.0000\t(1 images have none)",
        "\t # lpips: 0.3000\t(3 images have none)",
        "\t not measured: 1, the first lost: missing",
    ]
    assert _summary("S", records[1:2], {})[2] == "\t # lpips: nan\t(1 images have none)"


@pytest.mark.parametrize("settings", [{"seed": 0}, {"seed": 3}, {"legacy_order": True}])
def test_pairs_are_verified_in_their_order_with_the_options_seed_and_folds(settings: dict) -> None:
    rng = np.random.default_rng(0)
    rows = [(float(d), same) for same, middle in ((True, 0.9), (False, 1.3)) for d in rng.normal(middle, 0.4, 23)]
    pairs = [PairDistance("p", abs(distance), same, place) for place, (distance, same) in enumerate(rows)]
    expected = verify([pair.distance for pair in pairs], [pair.is_same for pair in pairs], **settings)
    records = []
    for i, order in enumerate(np.array_split(rng.permutation(46), 9)):  # 5 or 6 pairs of an image
        found = [pairs[place] for place in order] + [PairDistance("nobody", None, True, 99)]
        records.append(Record(i, f"f{i}", "", None, "", pairs={"v": found}))
    (_, line) = _summary("S", records, {"v": VerificationOptions(identity="x", **settings)})
    assert line == f"\t # v: {expected.accuracy:.4f} (46 pairs)"
