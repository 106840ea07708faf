"""One frame of a film: as a photograph, and what was changed in it put back into its own planes."""

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dfpg_plugin.checks import UserError
from dfpg_plugin.media.pictures import Picture, swap_red_and_blue

if TYPE_CHECKING:
    import av

LIMITED, FULL = 1, 2  # FFmpeg's numbers of ranges; 0: a file says nothing, which means limited
RGB, UNSPECIFIED = 0, 2  # FFmpeg's numbers of colour matrices
MATRICES = {1: 1, UNSPECIFIED: 5, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}  # FFmpeg's number: swscale's. 5 is BT.601, 9 BT.2020
DEEP_RGB = "rgb48le"  # 16 bits, so that 10 and 12 fit in
# EXIF's orientation by the signs of a display matrix: x' = a*x + c*y, y' = b*x + d*y, for (a, b, c, d)
ORIENTATIONS = {
    (1, 0, 0, 1): 1, (-1, 0, 0, 1): 2, (-1, 0, 0, -1): 3, (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5, (0, 1, -1, 0): 6, (0, -1, -1, 0): 7, (0, -1, 1, 0): 8,
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """What all frames that are encoded have in common."""

    width: int
    height: int
    pixel_format: str  # an encoder's
    matrix: int  # swscale's number
    range: int  # LIMITED or FULL
    orientation: int = 1  # EXIF's: how stored pixels are turned to be upright

    def fits(self, frame: "av.VideoFrame") -> bool:
        """Return whether a frame can be encoded as it is."""
        return frame.format.name == self.pixel_format and self.same_kind(frame)

    def same_kind(self, frame: "av.VideoFrame") -> bool:
        """Return whether a frame has this size, range and matrix."""
        size = (frame.width, frame.height) == (self.width, self.height)
        return size and (is_rgb(frame.format) or (matrix_of(frame), range_of(frame)) == (self.matrix, self.range))

    def conform(self, frame: "av.VideoFrame") -> "av.VideoFrame":
        """Return a frame of this layout: the same one where it fits, else scaled and converted."""
        if self.fits(frame):
            return frame
        return frame.reformat(
            width=self.width, height=self.height, format=self.pixel_format, src_colorspace=matrix_of(frame),
            dst_colorspace=self.matrix, src_color_range=range_of(frame), dst_color_range=self.range,
        )  # fmt: skip

    def picture(self, frame: "av.VideoFrame") -> Picture:
        """Return a frame of this layout as a photograph, uint16 BGR."""
        rgb = frame.reformat(
            format=DEEP_RGB, src_colorspace=self.matrix, src_color_range=self.range, dst_color_range=FULL
        )
        return Picture(swap_red_and_blue(rgb.to_ndarray()), self.orientation)

    def add_change(self, frame: "av.VideoFrame", before: Picture, after: Picture) -> None:
        """Add the difference of two photographs, uint16 BGR, to a frame of this layout.

        Only the difference goes by way of RGB. Where there is none, the frame's numbers stay as they are. What leaves
        the format's numbers is clipped.
        """
        frame.make_writable()
        most = 2 ** frame.format.components[0].bits - 1
        converted = [_numbers(self._of_picture(picture)) for picture in (before, after)]
        for numbers, old, new in zip(_numbers(frame), *converted, strict=True):
            change = new.astype(np.int32) - old
            numbers[:] = (numbers + change).clip(0, most)

    def _of_picture(self, picture: Picture) -> "av.VideoFrame":
        import av

        frame = av.VideoFrame.from_ndarray(swap_red_and_blue(picture.pixels), format=DEEP_RGB)
        return frame.reformat(
            format=self.pixel_format, dst_colorspace=self.matrix, src_color_range=FULL, dst_color_range=self.range
        )


def is_rgb(pixel_format: "av.VideoFormat") -> bool:
    """Return whether a format has red, green and blue, as such or in a palette."""
    return pixel_format.is_rgb or pixel_format.has_palette


def range_of(frame: "av.VideoFrame") -> int:
    """Return LIMITED or FULL."""
    name = frame.format.name
    if name.startswith("yuvj") or is_rgb(frame.format):
        return FULL
    if name.startswith(("gray", "ya", "mono")) and frame.color_range != LIMITED:  # as FFmpeg takes grey
        return FULL
    return FULL if frame.color_range == FULL else LIMITED


def matrix_of(frame: "av.VideoFrame") -> int:
    """Return swscale's number of a frame's colour matrix. Raises UserError where swscale has none."""
    number = int(frame.colorspace)
    if is_rgb(frame.format):
        return MATRICES[UNSPECIFIED]
    if number not in MATRICES:
        raise UserError(f"its colour matrix, number {number} of H.273, can't be read. Convert it to BT.709 first.")
    return MATRICES[number]


def display_matrix(frame: "av.VideoFrame") -> tuple[int, ...] | None:
    """Return the nine numbers that say how a frame is turned to be upright; None where it is so already."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            return struct.unpack("=9i", bytes(data))
    return None


def orientation_of(matrix: tuple[int, ...] | None) -> int:
    """Return EXIF's orientation, 1 to 8, of a display matrix, by the nearest right angle."""
    if matrix is None:
        return 1
    a, b, _, c, d, *_ = matrix
    most = max(abs(a), abs(b), abs(c), abs(d), 1)
    a, b, c, d = (round(value / most) for value in (a, b, c, d))
    return ORIENTATIONS.get((a, b, c, d), 1)


def _numbers(frame: "av.VideoFrame") -> list[NDArray]:
    """Return the planes of a frame as (height, width) or, of packed RGB, (height, 3*width). They are views."""
    packed = 1 if frame.format.is_planar or len(frame.format.components) == 1 else len(frame.format.components)
    kind = np.dtype("<u2" if frame.format.components[0].bits > 8 else "u1")
    planes = []
    for plane in frame.planes:
        rows = np.frombuffer(plane, kind).reshape(plane.height, -1)
        planes.append(rows[:: 1 if plane.line_size > 0 else -1, : packed * plane.width])
    return planes
