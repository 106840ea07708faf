"""What tells a data set its epoch."""

import pickle

import pytest
from torch.utils.data import DataLoader, Dataset

from dfpg_plugin.data.stream import EpochCounter, EpochIndex


class Epochs(Dataset):
    """Gives for each index the epoch it was drawn in."""

    def __init__(self) -> None:
        self.epochs = EpochCounter()

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        return self.epochs.position_of(index)[0] % 2**62  # as much as a tensor holds


def test_index_is_an_int_that_travels_with_its_epoch() -> None:
    index = pickle.loads(pickle.dumps(EpochIndex(3, 7, 9)))
    assert ["a", "b", "c", "d"][index] == "d"
    assert index == 3
    assert (index.epoch, index.step) == (7, 9)


def test_an_index_with_an_epoch_says_it() -> None:
    dataset = Epochs()
    assert dataset[EpochIndex(0, 5)] == 5
    assert dataset[EpochIndex(0, 5)] == 5


def test_a_plain_index_counts_its_draws() -> None:
    dataset = Epochs()
    assert [[dataset[i] for i in range(4)] for _ in range(3)] == [[e] * 4 for e in range(3)]


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_under_a_plain_sampler_never_repeat_an_epoch(persistent: bool) -> None:
    loader = DataLoader(Epochs(), batch_size=1, num_workers=2, persistent_workers=persistent)
    epochs = [int(e) for _ in range(3) for e in loader]
    assert len(set(epochs)) == 12
