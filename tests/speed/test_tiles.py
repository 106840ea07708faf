"""Restoring in tiles: what looks at few pixels gives the same, what looks at all shows no seam."""

from itertools import pairwise

import pytest
import torch
from skimage import data
from torch.nn import functional as F

from dfpg_plugin.archs.dfpgnet_arch import DFPGNet
from dfpg_plugin.checks import UserError
from dfpg_plugin.options.schema import Val
from dfpg_plugin.speed.tiles import restore_in_tiles, tile_starts


@pytest.mark.parametrize("length", [33, 64, 65, 100, 641])
@pytest.mark.parametrize("overlap", [0, 8, 15])
def test_tiles_cover_a_side_and_overlap(length: int, overlap: int) -> None:
    first = tile_starts(length, 32, overlap)
    assert first[0] == 0
    assert first[-1] + 32 == length
    steps = [b - a for a, b in pairwise(first)]
    assert min(steps) > 0
    assert max(steps) <= 32 - overlap


@pytest.mark.parametrize("size", [(40, 90), (32, 33), (20, 20)])
@pytest.mark.parametrize("scale", [1, 2])
def test_pixelwise_networks_give_the_same(size: tuple, scale: int) -> None:
    image = torch.rand(2, 3, *size)
    seen = []

    def restore(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.shape[-2:])
        return F.interpolate(x.square(), scale_factor=scale)

    result = restore_in_tiles(restore, image, 32, 8, scale)
    torch.testing.assert_close(result, F.interpolate(image.square(), scale_factor=scale))
    assert max(max(shape) for shape in seen) <= 32


def test_tiles_that_differ_by_a_constant_are_blended_without_a_step() -> None:
    """The worst that a network's view of the whole can do is another brightness in each tile."""
    brightness = iter(torch.linspace(0, 1, 16))
    result = restore_in_tiles(lambda x: x * 0 + next(brightness), torch.zeros(1, 1, 100, 100), 40, 16)
    steps = torch.cat([result.diff(dim=2).abs().flatten(), result.diff(dim=3).abs().flatten()])
    assert steps.max() < 1 / 16


def test_dfpgnet_shows_no_seam() -> None:
    """Across the overlap, the difference to the whole image's result moves no faster than a blend makes it."""
    torch.manual_seed(0)
    net = DFPGNet(num_feat=16, num_block=1, num_prior_block=1, squeeze_factor=4, init_scale=0.3).eval()
    photo = torch.from_numpy(data.astronaut()[:160, 100:260].copy()).permute(2, 0, 1)[None] / 255
    brightness = iter((0.0, 0.1, 0.2, 0.3))  # each tile looks at another whole
    with torch.no_grad():
        whole = net(photo)
        tiled = restore_in_tiles(lambda x: net(x) + next(brightness), photo, 96, 32)
    steps = (tiled - whole).diff(dim=3).abs().mean(dim=(0, 1, 2))
    assert steps.max() < 0.1 / 10


@pytest.mark.parametrize(
    ("val", "message"),
    [
        ({"tile": 64}, "val: tile: 64 px can't overlap by 32 px"),
        ({"tile": 32, "tile_overlap": 16}, "val: tile: 32 px can't overlap by 16 px"),
        ({"tile_overlap": 16}, "val: tile_overlap: is of no use without tile"),
    ],
)
def test_tiles_that_can_not_overlap_so_much_are_refused(val: dict, message: str) -> None:
    assert Val.read("val", {"tile": 65}).tile_overlap == 32
    with pytest.raises(UserError, match=message):
        Val.read("val", val)
