"""The order of the training data depends on the epoch alone, a sample's random numbers on seed, epoch and index."""

import math
from collections.abc import Iterator, Sized

import numpy as np
import torch
from basicsr.data.data_sampler import EnlargedSampler
from torch.utils.data import Dataset

from dfpg_plugin.data.stream import EpochIndex
from dfpg_plugin.seeding import everything_seeded


class EpochSampler(EnlargedSampler):
    """Yields indices in the order of BasicSR's sampler, each with its epoch and step. It can start inside an epoch.

    With a fraction as the ratio, the order is another one: see :meth:`__iter__`.

    ``batch_size``: the images of a batch in one process. Only whole batches are steps: 10 images in batches of 4 make
    2 steps an epoch.
    """

    start = 0

    def __init__(self, dataset: Sized, num_replicas: int, rank: int, ratio: float = 1, batch_size: int = 1) -> None:
        super().__init__(dataset, num_replicas, rank, ratio)
        self.batch_size = batch_size
        self.is_fractional = ratio % 1 != 0

    def set_position(self, epoch: int, start: int) -> None:
        """Let the next iteration of this sampler yield ``epoch``, from this process's sample number ``start`` on."""
        self.set_epoch(epoch)
        self.start = start

    def __iter__(self) -> Iterator[EpochIndex]:
        """Yield the indices of this process.

        With ``dataset_enlarge_ratio``, an index comes several times in an epoch. Each time it has another epoch number.
        A ratio of 1.5 takes half of the images a second time: each epoch draws another half. BasicSR always takes the
        first half (data_sampler.py:36).
        """
        size = len(self.dataset)
        repeats = math.ceil(self.total_size / size)
        first_step = self.epoch * (self.num_samples // self.batch_size)
        order = torch.randperm(self.total_size, generator=torch.Generator().manual_seed(self.epoch)).tolist()
        own = order[self.rank : self.total_size : self.num_replicas]
        whole = self.total_size // size * size  # the samples of whole passes through the images
        drawn_last = list(range(size))
        if self.is_fractional:
            drawn_last = torch.randperm(size, generator=torch.Generator().manual_seed(self.epoch)).tolist()
        for position, drawn in enumerate(own[self.start :], start=self.start):
            step = first_step + position // self.batch_size
            index = drawn % size if drawn < whole else drawn_last[drawn % size]
            yield EpochIndex(index, self.epoch * repeats + drawn // size, step)


class SeededDataset(Dataset):
    """A data set whose samples each draw from generators seeded by (seed, epoch, index), whichever worker reads them.

    BasicSR gives its workers the same seeds in every epoch, so that crops and flips repeat (data/__init__.py:99).
    """

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        """Return the length of the data set."""
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: EpochIndex) -> object:
        """Return a sample. Python's, NumPy's and torch's generators are seeded for the sample, and restored then."""
        sample_seed = np.random.SeedSequence([self.seed, index.epoch, index]).generate_state(1)[0]
        with everything_seeded(int(sample_seed)):
            return self.dataset[index]
