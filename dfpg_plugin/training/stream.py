"""The order of the training data, and the randomness of each sample, as functions of seed, epoch and position."""

import math
from collections.abc import Iterator, Sized

import numpy as np
import torch
from basicsr.data.data_sampler import EnlargedSampler
from torch.utils.data import Dataset

from dfpg_plugin.data.stream import EpochIndex
from dfpg_plugin.seeding import everything_seeded


class EpochSampler(EnlargedSampler):
    """BasicSR's sampler, in the same order, that tells each sample its epoch and step and can start inside an epoch.

    ``batch_size`` is each process's; an epoch is its whole batches.
    """

    start = 0

    def __init__(self, dataset: Sized, num_replicas: int, rank: int, ratio: float = 1, batch_size: int = 1) -> None:
        super().__init__(dataset, num_replicas, rank, ratio)
        self.batch_size = batch_size

    def set_position(self, epoch: int, start: int) -> None:
        """Let the next iteration be ``epoch``, from the sample at ``start`` (of this rank) on."""
        self.set_epoch(epoch)
        self.start = start

    def __iter__(self) -> Iterator[EpochIndex]:
        """Yield indices; one that comes several times in an enlarged epoch counts as of several epochs."""
        size = len(self.dataset)
        repeats = math.ceil(self.total_size / size)
        first_step = self.epoch * (self.num_samples // self.batch_size)
        order = torch.randperm(self.total_size, generator=torch.Generator().manual_seed(self.epoch)).tolist()
        own = order[self.rank : self.total_size : self.num_replicas]
        for position, v in enumerate(own[self.start :], start=self.start):
            yield EpochIndex(v % size, self.epoch * repeats + v // size, first_step + position // self.batch_size)


class SeededDataset(Dataset):
    """A data set whose samples draw from generators seeded by (seed, epoch, index), whichever worker reads them.

    BasicSR seeds its workers alike in every epoch, so that crops and flips repeat (data/__init__.py:99).
    """

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        """Return the length of the data set."""
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: EpochIndex) -> object:
        """Read the sample with Python's, NumPy's and torch's global generators seeded for it, and restored after it."""
        state = np.random.SeedSequence([self.seed, index.epoch, index]).generate_state(1)[0]
        with everything_seeded(int(state)):
            return self.dataset[index]
