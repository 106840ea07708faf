"""Damaged images of a training set. The log names them, the training skips them, and too many stop the training."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from basicsr.utils import get_root_logger

from dfpg_plugin.checks import UserError

Sample = TypeVar("Sample")


class BadFiles:
    """The images of the data set ``name`` that can't be used, out of ``count``.

    All worker processes share this list. One bad image is allowed, unless the set has no other image. More bad images
    are allowed up to ``share`` of all images, a number from 0 to below 1.
    """

    def __init__(self, name: str, count: int, share: float) -> None:
        if not 0 <= share < 1:
            raise UserError(f"datasets: {name}: max_bad_share: expected a share from 0 to below 1, got {share!r}.")
        self._name = name
        self._share = share
        self._bad = torch.zeros(count, dtype=torch.bool).share_memory_()

    def read(self, read: Callable[[int], Sample], index: int, rng: np.random.Generator) -> Sample:
        """Return ``read(index)``. If ``read`` raises UserError, read another index instead, drawn from ``rng``.

        The process of rank 0 logs every bad image once. BasicSR silences the loggers of the other ranks.
        Raises UserError if more images are bad than ``share`` allows, or if all are.
        """
        index = int(index)
        while True:
            if not self._bad[index]:
                try:
                    return read(index)
                except UserError as error:
                    self._add(index, error)
            index = int(rng.integers(len(self._bad)))

    def _add(self, index: int, error: UserError) -> None:
        self._bad[index] = True
        bad, count = int(self._bad.sum()), len(self._bad)
        if bad == count or bad > max(1, self._share * count):
            raise UserError(
                f"datasets: {self._name}: {bad} of {count} images can't be used, more than max_bad_share: "
                f"{self._share:g} allows. `basicsr prepare check` lists them. The last one: {error}"
            ) from error
        get_root_logger().warning(f"datasets: {self._name}: skipped ({bad} of {count} so far): {error}")
