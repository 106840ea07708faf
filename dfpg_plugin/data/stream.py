"""Which epoch a sample is drawn in: what makes a data stream a function of (seed, epoch, index)."""

from collections import Counter

from torch.utils.data import get_worker_info


class EpochIndex(int):
    """A sample's index that also carries its epoch. Datasets that know nothing of it see an ordinary int."""

    epoch: int

    def __new__(cls, index: int, epoch: int) -> "EpochIndex":
        """Return ``index`` with ``epoch`` as an attribute."""
        self = super().__new__(cls, index)
        self.epoch = epoch
        return self

    def __reduce__(self) -> tuple:
        """Travel to worker processes with the epoch."""
        return EpochIndex, (int(self), self.epoch)


class EpochCounter:
    """Tell a sample's epoch, under a sampler that gives :class:`EpochIndex` and under BasicSR's own, which does not.

    Under BasicSR's the number is made up. Without workers: how often this index was drawn before, which is the epoch
    where every index is drawn once an epoch. With workers: one that no other draw of the run has, so that no epoch
    repeats another as under BasicSR, which seeds its workers alike each time (data/__init__.py:99); then the stream
    depends on the number of workers.
    """

    def __init__(self) -> None:
        self._draws: Counter[int] = Counter()

    def epoch_of(self, index: int) -> int:
        """Return the epoch of a draw of ``index``, counted as a draw."""
        if isinstance(index, EpochIndex):
            return index.epoch
        self._draws[index] += 1
        worker = get_worker_info()
        if worker is not None:
            # the seed is new each epoch, and each worker's own; persistent workers keep it, hence the count
            return (worker.seed << 32) + self._draws.total()
        return self._draws[index] - 1
