"""The order of the samples and the seeds of data sets that know nothing of epochs."""

import random

import numpy as np
import pytest
import torch
from basicsr.data.data_sampler import EnlargedSampler
from torch.utils.data import DataLoader, Dataset

from dfpg_plugin.training.stream import EpochSampler, SeededDataset


class Draws(Dataset):
    """Every sample draws from the three global generators."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([index, random.random(), np.random.rand(), torch.rand(1).item()])


@pytest.mark.parametrize("ratio", [1, 3])
@pytest.mark.parametrize("replicas", [1, 2])
def test_order_is_basicsrs(ratio: int, replicas: int) -> None:
    for rank in range(replicas):
        ours, theirs = (cls(Draws(), replicas, rank, ratio) for cls in (EpochSampler, EnlargedSampler))
        for epoch in range(3):
            ours.set_position(epoch, 0)
            theirs.set_epoch(epoch)
            assert list(ours) == list(theirs)


def test_a_position_inside_an_epoch_continues_it() -> None:
    sampler = EpochSampler(Draws(), 1, 0, 1)
    sampler.set_position(4, 0)
    whole = list(sampler)
    sampler.set_position(4, 4)
    assert list(sampler) == whole[4:]
    assert {index.epoch for index in whole} == {4}


def test_repeats_in_an_enlarged_epoch_count_as_epochs_of_their_own() -> None:
    sampler = EpochSampler(Draws(), 1, 0, 2)
    seen = set()
    for epoch in range(3):
        sampler.set_position(epoch, 0)
        seen |= {(int(index), index.epoch) for index in sampler}
    assert seen == {(index, epoch) for index in range(6) for epoch in range(6)}


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_depend_on_seed_epoch_and_index_alone(workers: int) -> None:
    def epoch(number: int, seed: int = 1) -> dict[int, tuple]:
        sampler = EpochSampler(Draws(), 1, 0, 1)
        sampler.set_position(number, 0)
        loader = DataLoader(SeededDataset(Draws(), seed), 2, sampler=sampler, num_workers=workers)
        return {int(row[0]): tuple(row[1:].tolist()) for batch in loader for row in batch}

    reference = {}
    for index in epoch(0):
        state = np.random.SeedSequence([1, 0, index]).generate_state(1)[0]
        rng = random.Random(int(state))
        reference[index] = rng.random()
    assert {k: v[0] for k, v in epoch(0).items()} == pytest.approx(reference)
    assert epoch(0) == epoch(0)
    for other in (epoch(1), epoch(0, seed=2)):
        assert all(a != b for k in range(6) for a, b in zip(epoch(0)[k], other[k], strict=True))


def test_samples_leave_torchs_generator_alone() -> None:
    sampler = EpochSampler(Draws(), 1, 0, 1)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    SeededDataset(Draws(), 1)[next(iter(sampler))]
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("ratio", [0.5, 1.5])
def test_a_fraction_of_an_epoch_takes_other_images_each_time(ratio: float) -> None:
    sampler = EpochSampler(Draws(), 1, 0, ratio)
    counts = np.zeros(6)
    for epoch in range(600):
        sampler.set_position(epoch, 0)
        drawn = [int(index) for index in sampler]
        assert len(drawn) == 6 * ratio
        assert {drawn.count(i) for i in range(6)} == {int(ratio), int(ratio) + 1}
        counts += np.bincount(drawn, minlength=6)
    assert counts / 600 == pytest.approx(ratio, abs=0.1)  # in BasicSR 1, 1, 1, 0, 0, 0 or 2, 2, 2, 1, 1, 1
