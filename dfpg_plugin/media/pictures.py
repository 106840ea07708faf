"""Photographs with size, depth, transparency, orientation and colour profile as stored, and how to write them."""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from dfpg_plugin.checks import UserError
from dfpg_plugin.files import whole_file

LOSSLESS = (".png", ".tif", ".tiff", ".bmp")
LOSSY = (".jpg", ".jpeg")
DEEP = (".png", ".tif", ".tiff")  # can hold 16 bits
TRANSPARENT = (*DEEP, ".bmp")
WITHOUT_METADATA = (".tif", ".tiff", ".bmp")  # OpenCV writes no metadata into these
JPEG_QUALITY = 95
MOST_JPEG_METADATA = 65_000  # bytes; a segment of a JPEG holds 65,533, with a name at its beginning
ORIENTATION = 0x0112  # EXIF's tag
DEPTHS = {"uint8": 255.0, "uint16": 65535.0}  # the value of white
# for each EXIF orientation: make a stored picture upright, and undo that
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
    """A photograph. ``pixels`` are as stored: uint8 or uint16, (H,W) grey, (H,W,3) BGR or (H,W,4) BGRA."""

    pixels: NDArray
    orientation: int = 1  # EXIF's, 1 to 8
    metadata: tuple[tuple[int, bytes], ...] = ()  # (OpenCV's number for EXIF, XMP or ICC, content)
    notes: tuple[str, ...] = ()  # sentences about what was converted or left out of the file

    def colours(self) -> NDArray[np.float32]:
        """Return the upright picture as RGB (H,W,3) in [0,1]. Grey becomes three channels; transparency is dropped."""
        pixels = TURNS[self.orientation][0](self.pixels)
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[..., None], 3, axis=2)
        return pixels[..., 2::-1].astype(np.float32) / np.float32(DEPTHS[self.pixels.dtype.name])

    def with_changes(self, change: NDArray[np.float32], where: NDArray[np.bool_]) -> "Picture":
        """Add ``change``, upright RGB (H,W,3) with 1 as white, where the upright mask ``where`` (H,W) is true.

        All other pixels, and transparency, stay bit for bit. A grey picture gets the mean of the three channels.
        """
        turn, turn_back = TURNS[self.orientation]
        pixels = np.ascontiguousarray(turn(self.pixels)).copy()
        white = DEPTHS[pixels.dtype.name]
        selected = change[where]
        if pixels.ndim == 2:
            changed = pixels[where] + white * selected.mean(axis=1)
            pixels[where] = np.rint(changed).clip(0, white).astype(pixels.dtype)
        else:
            changed = pixels[where][:, :3] + white * selected[:, ::-1]
            pixels[where, :3] = np.rint(changed).clip(0, white).astype(pixels.dtype)
        return replace(self, pixels=np.ascontiguousarray(turn_back(pixels)))

    def array(self, colours: str) -> NDArray:
        """Return the stored pixels with their channels in the order ``colours``: ``bgr`` or ``rgb``."""
        return self.pixels if colours == "bgr" else swap_red_and_blue(self.pixels)


def swap_red_and_blue(pixels: NDArray) -> NDArray:
    """Exchange red and blue in (H,W,3) or (H,W,4). Grey (H,W) is returned as it is."""
    if pixels.ndim == 2:
        return pixels
    order = [2, 1, 0, 3][: pixels.shape[2]]
    return np.ascontiguousarray(pixels[..., order])


def encode_picture(picture: Picture, suffix: str) -> bytes:
    """Return the content of a file with ``suffix``, such as ``.png``. TIFF and BMP are upright, without metadata.

    Raises UserError if such a file can't hold the picture's depth, transparency or size.
    """
    pixels = picture.pixels
    if pixels.dtype != np.uint8 and suffix not in DEEP:
        raise UserError(f"{suffix} holds no 16 bits. Use .png.")
    if pixels.shape[2:] == (4,) and suffix not in TRANSPARENT:
        raise UserError(f"{suffix} does not keep transparency as it is. Use .png.")
    metadata = picture.metadata
    if suffix in LOSSY and (long := [content for _, content in metadata if len(content) > MOST_JPEG_METADATA]):
        raise UserError(
            f"{suffix} holds no colour profile, EXIF or XMP of {len(long[0])} bytes, at most {MOST_JPEG_METADATA}. Use "
            ".png."
        )
    if suffix in WITHOUT_METADATA:
        pixels, metadata = np.ascontiguousarray(TURNS[picture.orientation][0](pixels)), ()
        if suffix in DEEP and pixels.dtype == np.uint8 and pixels.shape[2:] == (4,):
            return _transparent_tiff(pixels)
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix in LOSSY else []
    kinds = [kind for kind, _ in metadata]
    contents = [np.frombuffer(content, np.uint8) for _, content in metadata]
    try:
        done, encoded = cv2.imencodeWithMetadata(suffix, pixels, kinds, contents, quality)
    except cv2.error as error:
        reason = str(error).strip()[-100:]
        raise UserError(f"{suffix}: OpenCV can't write this picture in this format ({reason}).") from error
    if not done or len(encoded) == 0:
        raise UserError(f"{suffix}: OpenCV can't write this picture in this format. Use .png.")
    return np.asarray(encoded).tobytes()


def _transparent_tiff(pixels: NDArray[np.uint8]) -> bytes:
    """Return a TIFF of BGRA (H,W,4). OpenCV's does not say that the fourth channel is transparency."""
    content = io.BytesIO()
    PillowImage.fromarray(swap_red_and_blue(pixels)).save(content, "TIFF", compression="tiff_lzw")
    return content.getvalue()


def write_picture(path: Path, picture: Picture, replace: bool = True) -> None:
    """Write a picture into a file, whole or not at all.

    Raises UserError, naming the file, if that is impossible, or if the file is there and may not be replaced.
    """
    try:
        content = encode_picture(picture, path.suffix.lower())
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    with whole_file(path, replace) as file:
        file.write(content)
