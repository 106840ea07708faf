"""Damaged images among a training set's: named, skipped, and too many only past a stated share."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from basicsr.utils import get_root_logger

from dfpg_plugin.checks import UserError

Sample = TypeVar("Sample")


class BadFiles:
    """Which of ``count`` images of the data set ``name`` can't be used; all worker processes share the knowledge.

    One is always allowed, more up to the ``share`` of all.
    """

    def __init__(self, name: str, count: int, share: float) -> None:
        if not 0 <= share < 1:
            raise UserError(f"datasets: {name}: max_bad_share: expected a share from 0 to below 1, got {share!r}.")
        self._name = name
        self._share = share
        self._bad = torch.zeros(count, dtype=torch.bool).share_memory_()

    def read(self, read: Callable[[int], Sample], index: int, rng: np.random.Generator) -> Sample:
        """Return ``read(index)``, or, where that raises UserError, ``read`` of another index that ``rng`` draws.

        Every bad image is logged once, by the process of rank 0: BasicSR silences the loggers of the others.
        Raises UserError where more than the share are bad.
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
