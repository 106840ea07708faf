"""Read Torch7's binary files: numbers, strings, tables, tensors, and modules as tables. Nothing in them is executed.

The format is that of a 64-bit machine: https://github.com/torch/torch7, File.lua, generic/Storage.c, generic/Tensor.c.
The file is memory-mapped: a tensor costs nothing until its values are asked for.
"""

import math
import mmap
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

NIL, NUMBER, STRING, TABLE, OBJECT, BOOLEAN = range(6)
FUNCTIONS = (6, 7, 8)
NUMBER_TYPES = {
    "Byte": "u1", "Char": "i1", "Short": "<i2", "Int": "<i4", "Long": "<i8", "Half": "<f2", "Float": "<f4",
    "Double": "<f8", "": "<f4",  # torch.CudaTensor holds floats
}  # fmt: skip
TENSOR_CLASS = re.compile(r"torch\.(?:Cuda)?(\w*?)(Tensor|Storage)")


@dataclass(frozen=True)
class T7Tensor:
    """A tensor as the file describes it: a part of a storage, from the number ``offset`` on."""

    storage: object
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        """Return the values, read-only. Raises ValueError unless they lie in the storage one after the other."""
        contiguous = [math.prod(self.shape[i + 1 :]) for i in range(len(self.shape))]
        sides = zip(self.shape, self.strides, contiguous, strict=True)
        in_order = all(size == 1 or stride == expected for size, stride, expected in sides)
        stop = self.offset + math.prod(self.shape)
        if not isinstance(self.storage, np.ndarray) or not in_order or any(size < 1 for size in self.shape):
            raise ValueError(f"a tensor of shape {self.shape} and strides {self.strides} is not contiguous")
        if not 0 <= self.offset < stop <= len(self.storage):
            raise ValueError(f"a tensor of shape {self.shape} lies outside of its storage")
        return self.storage[self.offset : stop].reshape(self.shape)


def read_torch7(path: Path) -> object:
    """Return the object that ``path`` holds: None, bool, float, str, dict (also for modules) or T7Tensor.

    Raises ValueError if the file is cut short, or holds functions or classes that this reader doesn't know.
    """
    with open(path, "rb") as file:
        return _Reader(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))).value()


class _Reader:
    def __init__(self, content: memoryview) -> None:
        self.content = content
        self.position = 0
        self.objects: dict[int, object] = {}  # by number; the file writes an object once, then only its number

    def value(self) -> object:
        kind = self.integer()
        if kind == NIL:
            return None
        if kind == NUMBER:
            return struct.unpack("<d", self.take(8))[0]
        if kind == BOOLEAN:
            return self.integer() == 1
        if kind == STRING:
            return self.string()
        if kind in FUNCTIONS:
            raise ValueError("it holds Lua functions, which are not read")
        if kind not in (TABLE, OBJECT):
            raise ValueError(f"unknown type {kind} at byte {self.position - 4}")
        index = self.integer()
        if index not in self.objects:
            return self.table(index) if kind == TABLE else self.object(index)
        return self.objects[index]

    def table(self, index: int) -> dict:
        table: dict = {}
        self.objects[index] = table  # before the content is read, which may contain the table itself
        for _ in range(self.integer()):
            key = self.value()
            table[key] = self.value()
        return table

    def object(self, index: int) -> object:
        version = self.string()
        name = self.string() if version.startswith("V ") else version  # the oldest files have no version
        if match := TENSOR_CLASS.fullmatch(name):
            read = self.tensor if match[2] == "Tensor" else self.storage
            self.objects[index] = read(match[1])
            return self.objects[index]
        if name.startswith(("torch.", "tds.")):
            raise ValueError(f"unknown class {name}")
        module: dict = {}
        self.objects[index] = module
        fields = self.value()
        if not isinstance(fields, dict):
            raise ValueError(f"{name} has no fields")
        module.update(fields)
        return module

    def tensor(self, number_type: str) -> T7Tensor:
        del number_type  # the storage has the same type
        num_dimensions = self.integer()
        shape = self.longs(num_dimensions)
        strides = self.longs(num_dimensions)
        (offset,) = self.longs(1)
        return T7Tensor(self.value(), offset - 1, shape, strides)  # Lua counts from 1

    def storage(self, number_type: str) -> np.ndarray:
        if number_type not in NUMBER_TYPES:
            raise ValueError(f"unknown class torch.{number_type}Storage")
        dtype = np.dtype(NUMBER_TYPES[number_type])
        (size,) = self.longs(1)
        return np.frombuffer(self.take(size * dtype.itemsize), dtype)

    def string(self) -> str:
        return str(self.take(self.integer()), "latin-1")

    def longs(self, count: int) -> tuple[int, ...]:
        return tuple(struct.unpack(f"<{count}q", self.take(8 * count))) if count else ()

    def integer(self) -> int:
        return struct.unpack("<i", self.take(4))[0]

    def take(self, size: int) -> memoryview:
        start, self.position = self.position, self.position + size
        if size < 0 or self.position > len(self.content):
            raise ValueError(f"it ends before byte {self.position}")
        return self.content[start : self.position]
