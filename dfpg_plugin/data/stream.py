"""The epoch and the step of a sample. With them, a sample depends only on (seed, epoch, step, index)."""

from collections import Counter

from torch.utils.data import get_worker_info


class EpochIndex(int):
    """The index of a sample, with its epoch and its step.

    A step is the number of a batch, counted over the whole training. The batches that several processes take at the
    same time are one step. To other data sets, an ``EpochIndex`` is an ordinary int.
    """

    epoch: int
    step: int

    def __new__(cls, index: int, epoch: int, step: int = 0) -> "EpochIndex":
        """Return ``index`` with ``epoch`` and ``step`` as attributes."""
        self = super().__new__(cls, index)
        self.epoch = epoch
        self.step = step
        return self

    def __reduce__(self) -> tuple:
        """Keep epoch and step when the index is pickled for a worker process."""
        return EpochIndex, (int(self), self.epoch, self.step)


class EpochCounter:
    """Tell the epoch and the step of a sample.

    An :class:`EpochIndex` tells both numbers. For plain indices, as from BasicSR's sampler, the counter makes them up:

    - Without workers, the epoch is the number of earlier draws of the index. This is right if each index is drawn once
      per epoch. The step is the number of complete batches of ``batch_size`` before this draw.
    - With workers, both numbers are unique in the run, so no epoch repeats another. (BasicSR gives its workers the same
      seeds in every epoch, data/__init__.py:99.) The stream then depends on the number of workers.
    - With several GPUs, the ranks of a step have different blur sizes. If one process shares a batch between several
      GPUs, the batch has several blur sizes. ``basicsr train`` mends both.
    """

    def __init__(self, batch_size: int = 1) -> None:
        self._batch_size = batch_size
        self._draws: Counter[int] = Counter()
        self._total = 0

    def position_of(self, index: int) -> tuple[int, int]:
        """Return (epoch, step) of ``index``, and count the draw."""
        if isinstance(index, EpochIndex):
            return index.epoch, index.step
        step = self._total // self._batch_size
        self._total += 1
        self._draws[index] += 1
        worker = get_worker_info()
        if worker is not None:
            # each worker has its own seed, new in each epoch; persistent workers keep theirs, so the draws are counted
            base = worker.seed << 32
            return base + self._total, base + step  # a worker gets whole batches
        return self._draws[index] - 1, step
