"""What tells a data set its epoch."""

import pickle

from torch.utils.data import DataLoader, Dataset

from dfpg_plugin.data.stream import EpochCounter, EpochIndex


class Epochs(Dataset):
    """Gives for each index the epoch it was drawn in."""

    def __init__(self) -> None:
        self.epochs = EpochCounter()

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        return self.epochs.epoch_of(index)


def test_index_is_an_int_that_travels_with_its_epoch() -> None:
    index = pickle.loads(pickle.dumps(EpochIndex(3, 7)))
    assert ["a", "b", "c", "d"][index] == "d"
    assert index == 3
    assert index.epoch == 7


def test_an_index_with_an_epoch_says_it() -> None:
    dataset = Epochs()
    assert dataset[EpochIndex(0, 5)] == 5
    assert dataset[EpochIndex(0, 5)] == 5


def test_a_plain_index_counts_its_draws() -> None:
    dataset = Epochs()
    assert [[dataset[i] for i in range(4)] for _ in range(3)] == [[e] * 4 for e in range(3)]


def test_workers_under_a_plain_sampler_share_a_number_that_changes_each_epoch() -> None:
    loader = DataLoader(Epochs(), batch_size=1, num_workers=2)
    epochs = [{int(e) for e in loader} for _ in range(3)]
    assert all(len(numbers) == 1 for numbers in epochs)
    assert len(set.union(*epochs)) == 3
