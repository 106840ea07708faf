"""A frame as a photograph and back, by the definitions of H.273: matrices, ranges and depths."""

from types import SimpleNamespace

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from restoration.test_video import numbers

from dfpg_plugin.media.pictures import Picture
from dfpg_plugin.media.video_frames import FULL, LIMITED, Layout, display_matrix, matrix_of, range_of, side_data_of

# H.273's number of a matrix: the shares of red and blue in the lightness
SHARES = {1: (0.2126, 0.0722), 2: (0.299, 0.114), 4: (0.3, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114),
          7: (0.212, 0.087), 9: (0.2627, 0.0593)}  # fmt: skip
COLOURS = np.random.default_rng(0).uniform(0.15, 0.75, (16, 16, 3))  # RGB


def coded(rgb: NDArray, matrix: int, range_: int, bits: int) -> list[NDArray]:
    """Return the numbers of lightness, blue difference and red difference, with their fractions."""
    red, blue = SHARES[matrix]
    light = rgb @ (red, 1 - red - blue, blue)
    differences = (rgb[..., 2] - light) / (2 - 2 * blue), (rgb[..., 0] - light) / (2 - 2 * red)
    steps, most = 2 ** (bits - 8), 2**bits - 1
    span, first, wide = (219 * steps, 16 * steps, 224 * steps) if range_ == LIMITED else (most, 0, most)
    return [first + span * light, *(2 ** (bits - 1) + wide * difference for difference in differences)]


@pytest.mark.parametrize("range_", [LIMITED, FULL])
@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("matrix", SHARES)
def test_colours_are_seen_and_changed_by_the_matrix_and_the_range_of_the_film(
    matrix: int, range_: int, bits: int
) -> None:
    frame = av.VideoFrame(16, 16, "yuv444p" if bits == 8 else "yuv444p10le")
    for plane, values in enumerate(coded(COLOURS, matrix, range_, bits)):
        numbers(frame, plane)[:] = np.rint(values).astype(numbers(frame, plane).dtype)
    frame.colorspace, frame.color_range = matrix, range_
    before = [numbers(frame, plane).astype(float) for plane in range(3)]
    layout = Layout(16, 16, frame.format.name, matrix_of(frame), range_of(frame))
    seen = layout.picture(frame)
    assert np.abs(seen.pixels[..., ::-1] / 65535 - COLOURS).max() < 0.01
    redder = seen.pixels.copy()
    redder[..., 2] += 6554  # a tenth
    layout.add_change(frame, seen, Picture(redder))
    redder_numbers, old_numbers = (coded(rgb, matrix, range_, bits) for rgb in (COLOURS + np.eye(3)[0] / 10, COLOURS))
    for plane in range(3):
        change = numbers(frame, plane) - before[plane]
        assert np.abs(change - (redder_numbers[plane] - old_numbers[plane])).max() < 2 ** (bits - 8) * 1.5


class Data:
    """A part of a frame's side data, as PyAV gives it."""

    def __init__(self, name: str, content: bytes) -> None:
        self.type, self.content = SimpleNamespace(name=name), content

    def __bytes__(self) -> bytes:
        return self.content


@pytest.mark.parametrize("gives_types", [False, True])  # up to PyAV 18 a loop gives the data, then their types
def test_side_data_are_read_as_each_pyav_gives_them(gives_types: bool) -> None:
    matrix = np.array([0, 1, 0, -1, 0, 0, 0, 0, 1], "<i4")
    parts = [Data("SEI_UNREGISTERED", b"x264"), Data("DISPLAYMATRIX", matrix.tobytes())]

    class Types(dict):
        def __init__(self) -> None:
            super().__init__({id(part.type): part for part in parts})

        def __iter__(self):
            return iter([part.type for part in parts])

        def __getitem__(self, kind: object) -> Data:
            return super().__getitem__(id(kind))

    frame = SimpleNamespace(side_data=Types() if gives_types else parts)
    assert side_data_of(frame) == {"SEI_UNREGISTERED": b"x264", "DISPLAYMATRIX": matrix.tobytes()}
    assert display_matrix(frame) == tuple(matrix)
