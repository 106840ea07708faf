"""What every metric of single images checks first."""

import numpy as np
import pytest

from dfpg_plugin.checks import UserError
from dfpg_plugin.metrics.images import checked_pair


@pytest.mark.parametrize(("shape", "input_order"), [((3, 20, 3), "HWC"), ((20, 3, 3), "HWC"), ((3, 3, 20), "CHW")])
def test_a_border_is_checked_against_the_shorter_side(shape: tuple[int, ...], input_order: str) -> None:
    image = np.zeros(shape, np.uint8)
    assert min(checked_pair("metric", image, image, 1, input_order)[0].shape[:2]) == 1
    with pytest.raises(UserError, match="crop_border: 2 does not fit images of shape"):
        checked_pair("metric", image, image, 2, input_order)
