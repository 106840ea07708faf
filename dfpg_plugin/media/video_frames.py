"""One frame of a film: convert the frame to a photograph, and put a change of the photograph back into the frame."""

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dfpg_plugin.checks import UserError
from dfpg_plugin.media.pictures import Picture, swap_red_and_blue

if TYPE_CHECKING:
    import av

LIMITED, FULL = 1, 2  # FFmpeg's numbers of colour ranges; 0 is unspecified and means limited
RGB, UNSPECIFIED = 0, 2  # FFmpeg's numbers of colour matrices
# swscale's number of a colour matrix by FFmpeg's number; swscale's 5 is BT.601, 9 is BT.2020
MATRICES = {1: 1, UNSPECIFIED: 5, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
DEEP_RGB = "rgb48le"  # 16 bits, enough for films of 10 and 12
# EXIF's orientation by the signs (a, b, c, d) of a display matrix: x' = a*x + c*y, y' = b*x + d*y
ORIENTATIONS = {
    (1, 0, 0, 1): 1, (-1, 0, 0, 1): 2, (-1, 0, 0, -1): 3, (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5, (0, 1, -1, 0): 6, (0, -1, -1, 0): 7, (0, -1, 1, 0): 8,
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """The format that all encoded frames of a film share."""

    width: int
    height: int
    pixel_format: str  # one that the encoder takes, such as yuv420p
    matrix: int  # swscale's number
    range: int  # LIMITED or FULL
    orientation: int = 1  # EXIF's, 1 to 8

    def fits(self, frame: "av.VideoFrame") -> bool:
        """Tell whether a frame can be encoded without conversion."""
        return frame.format.name == self.pixel_format and self.same_kind(frame)

    def same_kind(self, frame: "av.VideoFrame") -> bool:
        """Tell whether a frame has this size and, unless the frame is RGB, this range and matrix."""
        if (frame.width, frame.height) != (self.width, self.height):
            return False
        return is_rgb(frame.format) or (matrix_of(frame), range_of(frame)) == (self.matrix, self.range)

    def conform(self, frame: "av.VideoFrame") -> "av.VideoFrame":
        """Return the frame itself if it fits, otherwise a scaled and converted copy."""
        if self.fits(frame):
            return frame
        return frame.reformat(
            width=self.width, height=self.height, format=self.pixel_format, src_colorspace=matrix_of(frame),
            dst_colorspace=self.matrix, src_color_range=range_of(frame), dst_color_range=self.range,
        )  # fmt: skip

    def picture(self, frame: "av.VideoFrame") -> Picture:
        """Return a frame of this layout as a photograph with uint16 BGR pixels."""
        rgb = frame.reformat(
            format=DEEP_RGB, src_colorspace=self.matrix, src_color_range=self.range, dst_color_range=FULL
        )
        return Picture(swap_red_and_blue(rgb.to_ndarray()), self.orientation)

    def add_change(self, frame: "av.VideoFrame", before: Picture, after: Picture) -> None:
        """Add ``after`` - ``before``, both uint16 BGR, to a frame of this layout. Results are clipped to the format.

        Only this difference is converted from RGB. So pixels without a difference keep their exact values.
        """
        frame.make_writable()
        most = 2 ** frame.format.components[0].bits - 1
        frames = (frame, self._frame_of(before), self._frame_of(after))
        for plane, old, new in zip(*map(_planes, frames), strict=True):
            change = new.astype(np.int32) - old
            plane[:] = (plane + change).clip(0, most)

    def _frame_of(self, picture: Picture) -> "av.VideoFrame":
        import av

        frame = av.VideoFrame.from_ndarray(swap_red_and_blue(picture.pixels), format=DEEP_RGB)
        return frame.reformat(
            format=self.pixel_format, dst_colorspace=self.matrix, src_color_range=FULL, dst_color_range=self.range
        )


def is_rgb(pixel_format: "av.VideoFormat") -> bool:
    """Tell whether a format stores red, green and blue, directly or in a palette."""
    return pixel_format.is_rgb or pixel_format.has_palette


def range_of(frame: "av.VideoFrame") -> int:
    """Return the colour range of a frame, LIMITED or FULL."""
    name = frame.format.name
    if name.startswith("yuvj") or is_rgb(frame.format):
        return FULL
    if name.startswith(("gray", "ya", "mono")) and frame.color_range != LIMITED:  # FFmpeg does the same for grey
        return FULL
    return FULL if frame.color_range == FULL else LIMITED


def matrix_of(frame: "av.VideoFrame") -> int:
    """Return swscale's number of a frame's colour matrix. Raises UserError if swscale has none."""
    number = int(frame.colorspace)
    if is_rgb(frame.format):
        return MATRICES[UNSPECIFIED]
    if number not in MATRICES:
        raise UserError(f"its colour matrix, number {number} of H.273, can't be read. Convert it to BT.709 first.")
    return MATRICES[number]


def side_data_of(frame: "av.VideoFrame") -> dict[str, bytes]:
    """Return a frame's side data by FFmpeg's names, such as ``DISPLAYMATRIX``."""
    found = {}
    for part in frame.side_data:
        data = part if hasattr(part, "type") else frame.side_data[part]  # up to PyAV 18 the data, then their types
        found[data.type.name] = bytes(data)
    return found


def display_matrix(frame: "av.VideoFrame") -> tuple[int, ...] | None:
    """Return the nine numbers that turn a frame upright; None if it has no display matrix."""
    content = side_data_of(frame).get("DISPLAYMATRIX")
    return None if content is None else struct.unpack("=9i", content)


def orientation_of(matrix: tuple[int, ...] | None) -> int:
    """Return EXIF's orientation, 1 to 8, of a display matrix. Angles are rounded to the nearest right angle."""
    if matrix is None:
        return 1
    a, b, _, c, d, *_ = matrix
    most = max(abs(a), abs(b), abs(c), abs(d), 1)
    a, b, c, d = (round(value / most) for value in (a, b, c, d))
    return ORIENTATIONS.get((a, b, c, d), 1)


def _planes(frame: "av.VideoFrame") -> list[NDArray]:
    """Return views of a frame's planes, (height, width), or (height, 3*width) for packed RGB."""
    components = frame.format.components
    values_per_pixel = 1 if frame.format.is_planar else len(components)
    kind = np.dtype("<u2" if components[0].bits > 8 else "u1")
    planes = []
    for plane in frame.planes:
        rows = np.frombuffer(plane, kind).reshape(plane.height, -1)
        if plane.line_size < 0:  # the last row comes first
            rows = rows[::-1]
        planes.append(rows[:, : values_per_pixel * plane.width])
    return planes
