"""Options of the training's loader and of its loop act: what is loaded, how, and at which rate the first steps go."""

import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY
from kit import Brighten, for_sr_model, register, write_yaml
from torch.utils.data import DataLoader, Dataset

from dfpg_plugin.options.completing import Arguments, RunOptions, complete
from dfpg_plugin.training import loop
from dfpg_plugin.training.loop import Run, batches, build_train_loader


class Draws(Dataset):
    """Ten samples of whatever the global generator of torch draws."""

    def __init__(self, opt: dict) -> None:
        self.opt = opt

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.rand(3)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, DATASET_REGISTRY, Draws)
    register(monkeypatch, ARCH_REGISTRY, Brighten)


@pytest.fixture
def run_options(demo_options: dict, tmp_path: Path) -> Callable[..., RunOptions]:
    """Return the options of a training on those ten samples, two a batch, with these of its data set."""

    def make(manual_seed: int = 0, **of_set: object) -> RunOptions:
        opt = deepcopy(for_sr_model(demo_options))
        opt["datasets"] = {"train": {"type": "Draws", "batch_size_per_gpu": 2, **of_set}}
        opt.update(manual_seed=manual_seed, num_gpu=0)
        return RunOptions.of(SimpleNamespace(path="t.yml"), complete(opt, Arguments("t.yml"), tmp_path, is_train=True))

    return make


def loader_of(options: RunOptions) -> DataLoader:
    return build_train_loader(options, SimpleNamespace(start_worker=None))[1]


@pytest.mark.parametrize(
    ("of_set", "facts"),
    [
        ({}, {}),
        ({"batch_size_per_gpu": 3}, {"batch_size": 3, "batches": 3}),
        ({"num_worker_per_gpu": 2}, {"num_workers": 2}),
        ({"num_worker_per_gpu": 1, "persistent_workers": True}, {"num_workers": 1, "persistent_workers": True}),
        ({"pin_memory": True}, {"pin_memory": True}),
        ({"dataset_enlarge_ratio": 2.6}, {"batches": 13}),
    ],
)
def test_the_loader_is_built_as_the_data_set_says(run_options: Callable, of_set: dict, facts: dict) -> None:
    loader = loader_of(run_options(**of_set))
    usual = {"batch_size": 2, "batches": 5, "num_workers": 0, "persistent_workers": False, "pin_memory": False}
    found = {name: len(loader) if name == "batches" else getattr(loader, name) for name in usual}
    assert found == {**usual, **facts}


def test_what_a_data_set_draws_follows_manual_seed(run_options: Callable) -> None:
    first, again, other = (next(iter(loader_of(run_options(manual_seed=seed)))) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.isclose(first, other).any()


@pytest.mark.parametrize(("mode", "is_copied"), [("cuda", True), (None, False)])
def test_batches_are_copied_ahead_where_it_is_asked_for(
    run_options: Callable, monkeypatch: pytest.MonkeyPatch, mode: str | None, is_copied: bool
) -> None:
    class OnAGpu(torch.Tensor):
        """A tensor that notes who reads it."""

        def record_stream(self, stream: str) -> None:
            assert stream == "this one"

    class Prefetcher:
        def __init__(self, loader: DataLoader, opt: dict) -> None:
            self.left = iter(loader)

        def next(self) -> dict | None:
            batch = next(self.left, None)
            return None if batch is None else {"lq": batch["lq"].as_subclass(OnAGpu), "lq_path": "a.png"}

    monkeypatch.setattr(loop, "CUDAPrefetcher", Prefetcher)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: "this one")
    images = [{"lq": torch.rand(2)} for _ in range(3)]
    given = list(batches(Run(run_options(prefetch_mode=mode), None, None, images, [])))
    assert [isinstance(batch["lq"], OnAGpu) for batch in given] == [is_copied] * 3
    assert all(torch.equal(a["lq"], b["lq"]) for a, b in zip(given, images, strict=True))


@pytest.mark.parametrize(("warmup", "factors"), [(None, [1, 1, 1]), (2, [0.5, 1, 1]), (4, [0.25, 0.5, 0.75])])
def test_the_first_rates_rise_as_long_as_asked(
    command: Callable, demo_options: dict, tmp_path: Path, warmup: int | None, factors: list[float]
) -> None:
    options = {**for_sr_model(demo_options), "model_type": "DFPGModel"}  # BasicSR's own stay below the rate
    del options["val"], options["datasets"]["val"]
    options["datasets"]["train"]["kernel_sizes"] = [0]
    options["network_g"] = {"type": "Brighten"}
    options["train"] |= {"total_iter": 3, "optim_g": {"type": "Adam", "lr": 8e-3}, "warmup_iter": warmup}
    assert command("train", "-opt", write_yaml(tmp_path / "small.yml", options)) == 0
    (log,) = (tmp_path / "experiments" / "small").glob("train_*.log")
    rates = [float(rate) for rate in re.findall(r"lr:\((\S+?),\)", log.read_text())]
    assert rates == pytest.approx([8e-3 * factor for factor in factors])
