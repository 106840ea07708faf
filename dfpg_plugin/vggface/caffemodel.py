"""Read the blobs of a Caffe model (binary NetParameter: https://github.com/BVLC/caffe, src/caffe/proto/caffe.proto).

The wire format (https://protobuf.dev/programming-guides/encoding) is decoded here, from a memory-mapped file. The
package protobuf would hold VGG-16's 580 MB twice, and would have to be installed.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# NetParameter's field `layers` (old) is number 2, `layer` (new) 100; then the numbers of a layer's `name` and `blobs`
LAYERS = {2: (4, 6), 100: (1, 7)}
BLOB_DIMENSIONS, BLOB_DATA, BLOB_SHAPE = (1, 2, 3, 4), 5, 7
VARINT, LENGTH_DELIMITED = 0, 2  # wire types
FIXED_SIZES = {1: 8, 5: 4}  # bytes of a value of the other wire types


@dataclass(frozen=True)
class Blob:
    """An array as the file describes it. ``data``: the values' bytes, in one or more pieces."""

    shape: tuple[int, ...]
    data: tuple[memoryview, ...]

    def array(self) -> np.ndarray:
        """Return the values as float32. Raises ValueError if there are more or fewer than the shape says."""
        content = self.data[0] if len(self.data) == 1 else b"".join(self.data)
        return np.frombuffer(content, "<f4").reshape(self.shape)


def read_caffemodel(path: Path) -> Iterator[tuple[str, list[Blob]]]:
    """Yield the name and the blobs (weight, bias) of each layer. Raises ValueError if the file is damaged."""
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
            if number in BLOB_DIMENSIONS:  # old files give all four dimensions, in order
                shape.append(value)
        elif number == BLOB_DATA:
            data.append(value)
        elif number == BLOB_SHAPE:
            shape = [size for _, sizes in _fields(value) for size in _varints(sizes)]
    while len(shape) > 1 and shape[0] == 1:  # old files pad biases and matrices to four dimensions
        shape.pop(0)
    return Blob(tuple(shape), tuple(data))


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and the value of each field of a protobuf message."""
    position = 0
    while position < len(content):
        tag, position = _varint(content, position)
        wire_type = tag & 7
        if wire_type == VARINT:
            value, position = _varint(content, position)
            yield tag >> 3, value
            continue
        if wire_type == LENGTH_DELIMITED:
            size, position = _varint(content, position)
        elif wire_type in FIXED_SIZES:
            size = FIXED_SIZES[wire_type]
        else:
            raise ValueError(f"not a protobuf message: wire type {wire_type}")
        start, position = position, position + size
        if position > len(content):
            raise ValueError("a field goes on after the end")
        yield tag >> 3, content[start:position]


def _varint(content: memoryview, position: int) -> tuple[int, int]:
    """Return the number at ``position`` and the position after the number."""
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
    """Return the numbers of a repeated field: one number, or several numbers that are packed."""
    if isinstance(content, int):
        return [content]
    values, position = [], 0
    while position < len(content):
        value, position = _varint(content, position)
        values.append(value)
    return values
