"""Where in the stream a sample is drawn: what makes a data stream a function of (seed, epoch, index)."""

from collections import Counter

from torch.utils.data import get_worker_info


class EpochIndex(int):
    """A sample's index that also carries its epoch and its step, the number of the batch in the whole training.

    The batches that several processes take at once are one step. Data sets that know nothing of it see an ordinary int.
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
        """Travel to worker processes with epoch and step."""
        return EpochIndex, (int(self), self.epoch, self.step)


class EpochCounter:
    """Tell a sample's epoch and step, under a sampler that gives :class:`EpochIndex` and under BasicSR's own.

    Under BasicSR's the numbers are made up. Without workers: how often this index was drawn before, which is the epoch
    where every index is drawn once an epoch, and how many batches of ``batch_size`` were. With workers: numbers that no
    other epoch and batch of the run have, so that no epoch repeats another as under BasicSR, which seeds its workers
    alike each time (data/__init__.py:99); then the stream depends on the number of workers. With several GPUs the ranks
    differ in the blur size of a step, and a batch that several GPUs of one process share holds several sizes;
    ``basicsr train`` mends both.
    """

    def __init__(self, batch_size: int = 1) -> None:
        self._batch_size = batch_size
        self._draws: Counter[int] = Counter()
        self._total = 0

    def position_of(self, index: int) -> tuple[int, int]:
        """Return (epoch, step) of a draw of ``index``, counted as a draw."""
        if isinstance(index, EpochIndex):
            return index.epoch, index.step
        step = self._total // self._batch_size
        self._total += 1
        self._draws[index] += 1
        worker = get_worker_info()
        if worker is not None:
            # the seed is new each epoch, and each worker's own; persistent workers keep it, hence the count. A worker
            # gets whole batches.
            return (worker.seed << 32) + self._total, (worker.seed << 32) + step
        return self._draws[index] - 1, step
