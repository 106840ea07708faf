"""Read the blobs of a Caffe model (binary NetParameter: https://github.com/BVLC/caffe, src/caffe/proto/caffe.proto).

The wire format (https://protobuf.dev/programming-guides/encoding) is decoded here from a mapped file: the protobuf
package would hold VGG-16's 580 MB twice, and would be one more thing to install.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LAYERS = {2: (4, 6), 100: (1, 7)}  # NetParameter's `layers` and `layer`: the numbers of their fields name and blobs
BLOB_DIMENSIONS, BLOB_DATA, BLOB_SHAPE = (1, 2, 3, 4), 5, 7


@dataclass(frozen=True)
class Blob:
    """An array as the file describes it."""

    shape: tuple[int, ...]
    data: tuple[memoryview, ...]

    def array(self) -> np.ndarray:
        """Return the values as float32; raise ValueError where there are more or fewer than the shape says."""
        return np.frombuffer(self.data[0] if len(self.data) == 1 else b"".join(self.data), "<f4").reshape(self.shape)


def read_caffemodel(path: Path) -> Iterator[tuple[str, list[Blob]]]:
    """Yield the name and the blobs (weight, bias) of each layer. Raises ValueError where the file is damaged."""
    with open(path, "rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    for number, value in _fields(content):
        if number in LAYERS and not isinstance(value, int):
            name_field, blob_field = LAYERS[number]
            fields = [(n, v) for n, v in _fields(value) if not isinstance(v, int)]
            name = "".join(str(v, "utf-8") for n, v in fields if n == name_field)
            yield name, [_blob(v) for n, v in fields if n == blob_field]


def _blob(content: memoryview) -> Blob:
    shape: list[int] = []
    data = []
    for number, value in _fields(content):
        if isinstance(value, int):
            if number in BLOB_DIMENSIONS:  # of old files, which give all four, in order
                shape.append(value)
        elif number == BLOB_DATA:
            data.append(value)
        elif number == BLOB_SHAPE:
            shape = [size for _, sizes in _fields(value) for size in _varints(sizes)]
    while len(shape) > 1 and shape[0] == 1:  # old files pad biases and matrices to four dimensions
        shape.pop(0)
    return Blob(tuple(shape), tuple(data))


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of a protobuf message's fields."""
    position, sizes = 0, {1: 8, 5: 4}
    while position < len(content):
        tag, position = _varint(content, position)
        wire_type = tag & 7
        if wire_type == 0:
            value, position = _varint(content, position)
            yield tag >> 3, value
            continue
        if wire_type == 2:
            size, position = _varint(content, position)
        elif wire_type in sizes:
            size = sizes[wire_type]
        else:
            raise ValueError(f"not a protobuf message: wire type {wire_type}")
        start, position = position, position + size
        if position > len(content):
            raise ValueError("a field goes on after the end")
        yield tag >> 3, content[start:position]


def _varint(content: memoryview, position: int) -> tuple[int, int]:
    """Return the number at ``position`` and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(content):
            raise ValueError("a number goes on after the end")
        byte = content[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError("a number is longer than 64 bits")


def _varints(content: int | memoryview) -> list[int]:
    """Return repeated numbers, packed or not."""
    if isinstance(content, int):
        return [content]
    values, position = [], 0
    while position < len(content):
        value, position = _varint(content, position)
        values.append(value)
    return values
