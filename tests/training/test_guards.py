"""Steps that are not finite: stopped or skipped, and named."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from kit import write_yaml

from dfpg_plugin.checks import UserError
from dfpg_plugin.models.nonfinite import StepCheck
from dfpg_plugin.options.schema import NonFinite

POISONED = (2, 3)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch, demo_options: dict, tmp_path: Path) -> Callable[..., Path]:
    """Make an option file whose training meets NaN in two iterations."""
    from dfpg_plugin.models.mended_model import MendedModel

    feed, count = MendedModel.feed_data, [0]

    def feed_data(self: MendedModel, data: dict) -> None:
        trains = len(data["lq"]) > 1  # a validation has one image at a time
        count[0] += trains
        if trains and count[0] in POISONED:
            data = {**data, "gt": data["gt"] * torch.nan}
        feed(self, data)

    monkeypatch.setattr(MendedModel, "feed_data", feed_data)

    def make(**non_finite: object) -> Path:
        count[0] = 0
        demo_options["train"]["non_finite"] = non_finite or None
        return write_yaml(tmp_path / "small.yml", demo_options)

    return make


def test_by_default_it_stops_and_names_the_files(command: Callable, poisoned: Callable, capsys) -> None:
    assert command("train", "-opt", poisoned()) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"l_d_real is nan at iteration 2\. .* The batch: \S+\.png, \S+\.png\.$", error)


def test_where_the_host_does_not_wait_a_bad_iteration_is_told_before_it_is_saved(
    command: Callable, poisoned: Callable, tmp_path: Path, monkeypatch, capsys
) -> None:
    begin = StepCheck.begin

    def without_waiting(self: StepCheck, current_iter: int) -> None:
        self.waits = False  # as on a GPU
        begin(self, current_iter)

    monkeypatch.setattr(StepCheck, "begin", without_waiting)
    assert command("train", "-opt", poisoned(), "--force_yml", "logger:print_freq=100") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"l_d_real is nan at iteration 2\. .* The batch: \S+\.png, \S+\.png\.$", error)
    assert not list((tmp_path / "experiments" / "small" / "training_states").glob("2.*"))


def test_skipped_batches_are_counted_and_change_no_weight(
    command: Callable, poisoned: Callable, tmp_path: Path, monkeypatch
) -> None:
    from dfpg_plugin.models.dfpg_model import DFPGModel

    step, before_and_after = DFPGModel.optimize_parameters, []

    def watched(self: DFPGModel, current_iter: int) -> None:
        before = [p.clone() for net in (self.net_g, self.net_d) for p in net.parameters()]
        try:
            step(self, current_iter)
        finally:
            after = [p for net in (self.net_g, self.net_d) for p in net.parameters()]
            before_and_after.append(all(map(torch.equal, before, after)))

    monkeypatch.setattr(DFPGModel, "optimize_parameters", watched)
    assert command("train", "-opt", poisoned(action="skip", limit=2)) == 0
    assert before_and_after == [False, True, True, False]
    (log,) = (tmp_path / "experiments" / "small").glob("train_*.log")
    assert re.findall(r"Skipped, (\d) of at most 2: l_d_real is nan at iteration (\d)", log.read_text()) == [
        ("1", "2"), ("2", "3"),
    ]  # fmt: skip
    assert re.findall(r"iter:\s+(\d),", log.read_text()) == ["1", "4"]


def test_more_than_the_limit_stop_it(command: Callable, poisoned: Callable, capsys) -> None:
    assert command("train", "-opt", poisoned(action="skip", limit=1)) == 1
    assert "l_d_real is nan at iteration 3" in capsys.readouterr().err


def test_a_model_of_basicsr_is_stopped_and_nothing_saved(
    command: Callable, demo_options: dict, tmp_path: Path, capsys
) -> None:
    demo_options.update(model_type="SRModel", path={})
    for key in ("network_d", "network_prior"):
        del demo_options[key]
    for key in ("prior_opt", "gan_opt", "optim_d", "estimated_prior"):
        del demo_options["train"][key]
    demo_options["train"]["scheduler"] = {"type": "MultiStepLR", "milestones": [9]}
    demo_options["train"]["pixel_opt"]["loss_weight"] = float("inf")
    assert command("train", "-opt", write_yaml(tmp_path / "small.yml", demo_options)) == 1
    assert "l_pix is inf at iteration 1, and SRModel has updated its weights with it" in capsys.readouterr().err
    assert not list((tmp_path / "experiments").rglob("*.pth"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"action": "ignore"}, "action: expected stop or skip, got 'ignore'"),
        ({"limit": -1}, "from 0"),
        ({"limit": 1.5}, "limit: expected a whole number from 0, got 1.5"),
        ({"limits": 1}, "unknown key 'limits'. Did you mean limit"),
        ("skip", "expected options as `key: value`, got 'skip'"),
    ],
)
def test_wrong_options_are_named(given: object, message: str) -> None:
    with pytest.raises(UserError, match=f"train:non_finite.*{message}"):
        NonFinite.read("train:non_finite", given, only_these=True)
