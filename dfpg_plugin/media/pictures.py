"""Photographs as they are, and how to write them: their size, depth, transparency, orientation and colour profile."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dfpg_plugin.checks import UserError
from dfpg_plugin.files import whole_file

LOSSLESS = (".png", ".tif", ".tiff", ".bmp")
LOSSY = (".jpg", ".jpeg")
DEEP = (".png", ".tif", ".tiff")  # hold 16 bits
TRANSPARENT = (*DEEP, ".bmp")
WITHOUT_METADATA = (".tif", ".tiff", ".bmp")  # OpenCV writes none there
JPEG_QUALITY = 95
ORIENTATION = 0x0112  # EXIF's tag
DEPTHS = {"uint8": 255.0, "uint16": 65535.0}
# what makes a picture of each EXIF orientation upright, and the inverse
TURNS: dict[int, tuple[Callable, Callable]] = {
    1: (lambda a: a, lambda a: a),
    2: (lambda a: a[:, ::-1], lambda a: a[:, ::-1]),
    3: (lambda a: a[::-1, ::-1], lambda a: a[::-1, ::-1]),
    4: (lambda a: a[::-1], lambda a: a[::-1]),
    5: (lambda a: a.swapaxes(0, 1), lambda a: a.swapaxes(0, 1)),
    6: (lambda a: np.rot90(a, -1), lambda a: np.rot90(a, 1)),
    7: (lambda a: np.rot90(a, 2).swapaxes(0, 1), lambda a: np.rot90(a, 2).swapaxes(0, 1)),
    8: (lambda a: np.rot90(a, 1), lambda a: np.rot90(a, -1)),
}


@dataclass(frozen=True)
class Picture:
    """A photograph: its pixels as they are stored, uint8 or uint16, (H,W), (H,W,3) BGR or (H,W,4) BGRA."""

    pixels: NDArray
    orientation: int = 1  # EXIF's, 1 to 8
    metadata: tuple[tuple[int, bytes], ...] = ()  # OpenCV's kinds (EXIF, XMP, ICC) and contents
    notes: tuple[str, ...] = ()  # what its file held that it does not, and what was converted

    def colours(self) -> NDArray[np.float32]:
        """Return what is seen, upright: RGB (H,W,3) in [0,1], without transparency."""
        pixels = TURNS[self.orientation][0](self.pixels)
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[..., None], 3, axis=2)
        return pixels[..., 2::-1].astype(np.float32) / np.float32(DEPTHS[self.pixels.dtype.name])

    def with_changes(self, change: NDArray[np.float32], where: NDArray[np.bool_]) -> "Picture":
        """Add a change to what is seen, upright RGB (H,W,3), where a mask (H,W) says; all else stays bit for bit.

        Of grey pictures the mean of the three changes counts.
        """
        turn, turn_back = TURNS[self.orientation]
        pixels = np.ascontiguousarray(turn(self.pixels)).copy()
        most = DEPTHS[pixels.dtype.name]
        selected = change[where]
        if pixels.ndim == 2:
            changed = pixels[where] + most * selected.mean(axis=1)
            pixels[where] = np.rint(changed).clip(0, most).astype(pixels.dtype)
        else:
            changed = pixels[where][:, :3] + most * selected[:, ::-1]
            pixels[where, :3] = np.rint(changed).clip(0, most).astype(pixels.dtype)
        return replace(self, pixels=np.ascontiguousarray(turn_back(pixels)))

    def array(self, colours: str) -> NDArray:
        """Return the pixels as they are stored, in the order of ``colours``: ``bgr`` or ``rgb``."""
        return self.pixels if colours == "bgr" else swap_red_and_blue(self.pixels)


def swap_red_and_blue(pixels: NDArray) -> NDArray:
    """Exchange red and blue of (H,W,3) or (H,W,4); (H,W) stays as it is."""
    if pixels.ndim == 2:
        return pixels
    return np.ascontiguousarray(pixels[..., [2, 1, 0, 3][: pixels.shape[2]]])


def encode_picture(picture: Picture, suffix: str) -> bytes:
    """Encode as a file of a kind, ``.png`` say; TIFF and BMP upright. Raises UserError where it can't hold it."""
    pixels = picture.pixels
    if pixels.dtype != np.uint8 and suffix not in DEEP:
        raise UserError(f"{suffix} holds no 16 bits. Use .png.")
    if pixels.shape[2:] == (4,) and suffix not in TRANSPARENT:
        raise UserError(f"{suffix} does not keep transparency as it is. Use .png.")
    metadata = picture.metadata
    if suffix in WITHOUT_METADATA:
        pixels, metadata = np.ascontiguousarray(TURNS[picture.orientation][0](pixels)), ()
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix in LOSSY else []
    kinds, contents = [kind for kind, _ in metadata], [part for _, part in metadata]
    try:
        done, encoded = cv2.imencodeWithMetadata(
            suffix, pixels, kinds, [np.frombuffer(part, np.uint8) for part in contents], quality
        )
    except cv2.error as error:
        raise UserError(f"{suffix}: OpenCV can't write such a picture as it ({str(error).strip()[-100:]}).") from error
    if not done or len(encoded) == 0:
        raise UserError(f"{suffix}: OpenCV can't write such a picture as it. Use .png.")
    return np.asarray(encoded).tobytes()


def write_picture(path: Path, picture: Picture) -> None:
    """Write a file, whole or not at all. Raises UserError, naming it."""
    content = encode_picture(picture, path.suffix.lower())
    with whole_file(path) as file:
        file.write(content)
