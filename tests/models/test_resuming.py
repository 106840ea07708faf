"""Options that are changed between two starts of a training take effect; those that are not keep every bit."""

import copy
import logging
from collections.abc import Callable, Iterator

import pytest
import torch
from basicsr.models.base_model import BaseModel

from dfpg_plugin.checks import UserError
from dfpg_plugin.models.mended_model import MendedModel
from dfpg_plugin.models.resuming import OPTIONS, TYPES, compared_options, types_of, with_given_options

ADAM = {"type": "Adam", "lr": 1e-3, "betas": [0.9, 0.99]}
STEPS = {"type": "MultiStepLR", "milestones": [4], "gamma": 0.5}
SAVED_AT = 6
METRICS = {"psnr": {"type": "calculate_psnr"}, "lpips": {"type": "calculate_lpips", "better": "lower"}}


class Rates(MendedModel):
    """The part of a model that has rates."""

    def __init__(self, optim_g: dict, scheduler: dict, metrics: dict | None = None) -> None:
        train = {"total_iter": 10, "optim_g": optim_g, "scheduler": copy.deepcopy(scheduler)}
        opt = {"num_gpu": 0, "is_train": True, "datasets": {"val": {"name": "faces"}}, "train": train}
        BaseModel.__init__(self, {**opt, "val": {"metrics": metrics}})
        self.weight = torch.nn.Parameter(torch.ones(3))
        options = {key: value for key, value in optim_g.items() if key != "type"}
        self.optimizers = [self.get_optimizer(optim_g["type"], [self.weight], **options)]
        self.setup_schedulers()

    def train(self, first: int, last: int) -> list[float]:
        rates = []
        for iteration in range(first, last + 1):
            self.update_learning_rate(iteration)
            rates.append(self.optimizers[0].param_groups[0]["lr"])
            self.optimizers[0].zero_grad()
            (self.weight * torch.arange(3)).square().sum().backward()
            self.optimizers[0].step()
        return rates

    def state(self) -> dict:
        parts = {"optimizers": self.optimizers, "schedulers": self.schedulers}
        states = {name: [part.state_dict() for part in of_model] for name, of_model in parts.items()}
        return copy.deepcopy({"iter": SAVED_AT, **states, TYPES: types_of(self)})


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What BasicSR's logger says, which hands nothing on to others."""
    logger = logging.getLogger("basicsr")
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, "basicsr"):
        yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture
def saved() -> Callable[..., dict]:
    def build(optim_g: dict = ADAM, scheduler: dict = STEPS) -> dict:
        model = Rates(optim_g, scheduler)
        model.train(1, SAVED_AT)
        return model.state()

    return build


def resumed(model: Rates, state: dict) -> Rates:
    state = with_given_options(model, state)
    BaseModel.resume_training(model, state)
    return model


SCHEDULES = [
    STEPS,
    {"type": "MultiStepRestartLR", "milestones": [2, 8], "gamma": 0.5, "restarts": [0, 5], "restart_weights": [1, 0.5]},
    {"type": "CosineAnnealingRestartLR", "periods": [4, 4, 4], "restart_weights": [1, 0.5, 0.5], "eta_min": 1e-7},
    {"type": "StepLR", "step_size": 2, "gamma": 0.9},
    {"type": "CosineAnnealingLR", "T_max": 10},
    {"type": "CosineAnnealingWarmRestarts", "T_0": 3},
    {"type": "OneCycleLR", "max_lr": 0.01, "total_steps": 20},
]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s["type"])
def test_unchanged_options_change_no_bit(
    saved: Callable, log: pytest.LogCaptureFixture, schedule: dict, known: bool
) -> None:
    state = saved(scheduler=schedule)
    if not known:  # a state of BasicSR's or of an earlier version
        del state[TYPES]
    whole = Rates(ADAM, schedule).train(1, 10)
    model = resumed(Rates(ADAM, schedule), copy.deepcopy(state))
    assert str(model.state()["optimizers"]) == str(state["optimizers"])
    assert str(model.state()["schedulers"]) == str(state["schedulers"])
    assert model.train(SAVED_AT + 1, 10) == whole[SAVED_AT:]
    assert "Changed" not in log.text


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s["type"])
def test_another_type_of_schedule_goes_on_as_if_it_had_always_been_there(
    saved: Callable, log: pytest.LogCaptureFixture, schedule: dict, known: bool
) -> None:
    constant = {"type": "ConstantLR", "factor": 1.0}
    for before, after in ((constant, schedule), (schedule, constant)):
        state = saved(scheduler=before)
        if not known:
            del state[TYPES]
        rates = resumed(Rates(ADAM, after), state).train(SAVED_AT + 1, 10)
        assert rates == Rates(ADAM, after).train(1, 10)[SAVED_AT:]
        saved_type = before["type"].replace("MultiStepLR", "MultiStepRestartLR") if known else "another"
        assert f"train:scheduler:type {saved_type} -> " in log.text


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("lr", 1e-6, "train:optim_g:lr 0.001 -> 1e-06"),
        ("betas", [0.5, 0.9], "train:optim_g:betas [0.9, 0.99] -> [0.5, 0.9]"),
        ("weight_decay", 0.1, "train:optim_g:weight_decay 0 -> 0.1"),
        ("eps", 1e-4, "train:optim_g:eps 1e-08 -> 0.0001"),
        ("milestones", [5, 8], "train:scheduler:milestones [4] -> [5, 8]"),
        ("gamma", 0.25, "train:scheduler:gamma 0.5 -> 0.25"),
    ],
)
def test_a_changed_option_takes_effect_and_is_said(
    saved: Callable, log: pytest.LogCaptureFixture, key: str, value: object, said: str
) -> None:
    optim_g = {**ADAM, key: value} if said.startswith("train:optim_g") else ADAM
    schedule = STEPS if optim_g is not ADAM else {**STEPS, key: value}
    state = saved()
    model = resumed(Rates(optim_g, schedule), copy.deepcopy(state))
    assert log.messages == [f"Changed since iteration 6, and in effect from now on: {said}."]
    group = model.optimizers[0].param_groups[0]
    new = Rates(optim_g, schedule).optimizers[0].param_groups[0]
    assert {name: group[name] for name in group if name not in ("params", "lr")} == {
        name: new[name] for name in new if name not in ("params", "lr")
    }
    assert model.train(SAVED_AT + 1, 10) == Rates(optim_g, schedule).train(1, 10)[SAVED_AT:]
    assert model.optimizers[0].state_dict()["state"][0]["step"] == 10


@pytest.mark.parametrize(
    ("kind", "key", "value"), [("Adam", "amsgrad", True), ("RMSprop", "centered", True), ("RMSprop", "momentum", 0.9)]
)
def test_what_needs_more_than_was_saved_is_an_error(saved: Callable, kind: str, key: str, value: object) -> None:
    plain = {"type": kind, "lr": 1e-3}
    with pytest.raises(UserError, match=f"^train:optim_g:{key}: {value} can't go on from a state of (False|0)"):
        resumed(Rates({**plain, key: value}, STEPS), saved(plain))
    resumed(Rates(plain, STEPS), saved({**plain, key: value})).train(SAVED_AT + 1, 10)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("other", ["AdamW", "SGD", "RMSprop"])
def test_another_optimizer_is_an_error_that_names_it(saved: Callable, other: str, known: bool) -> None:
    state = saved()
    if not known:
        del state[TYPES]
    named = "Adam" if known else "another optimizer"
    with pytest.raises(UserError, match=f"^train:optim_g:type: {other} can't go on from a state of {named}. Set it as"):
        resumed(Rates({"type": other, "lr": 1e-3}, STEPS), state)


def test_the_best_metrics_are_those_of_the_options(saved: Callable) -> None:
    psnr, old = {"better": "higher", "val": 30.0, "iter": 4}, {"better": "higher", "val": 1.0, "iter": 2}
    state = {**saved(), "best_metric_results": {"faces": {"ssim": old, "psnr": psnr}}}
    model = Rates(ADAM, STEPS, METRICS)
    new = {"better": "lower", "val": float("inf"), "iter": -1}
    assert with_given_options(model, state)["best_metric_results"] == {"faces": {"psnr": psnr, "lpips": new}}
    state["best_metric_results"]["faces"]["lpips"] = old
    assert with_given_options(model, state)["best_metric_results"] == {"faces": {"psnr": psnr, "lpips": new}}


def test_a_state_of_another_model_is_left_to_basicsr(saved: Callable) -> None:
    state = saved()
    state["optimizers"] *= 2
    with pytest.raises(AssertionError, match="Wrong lengths of optimizers"):
        resumed(Rates(ADAM, STEPS), state)


def test_best_values_of_sets_and_metrics_that_are_others_now_begin_anew(saved: Callable) -> None:
    model = Rates(ADAM, STEPS, METRICS)
    psnr, lpips = {"better": "higher", "val": 30.0, "iter": 4}, {"better": "lower", "val": 0.2, "iter": 2}
    records = {"gone": {"psnr": psnr}, "faces": {"psnr": psnr, "lpips": lpips}}
    options = copy.deepcopy(compared_options(model.opt))
    options["val"]["metrics"]["psnr"]["crop_border"] = 4
    state = {**saved(), "best_metric_results": records, OPTIONS: options}
    new = {"better": "higher", "val": float("-inf"), "iter": -1}
    assert with_given_options(model, state)["best_metric_results"] == {"faces": {"psnr": new, "lpips": lpips}}


def test_every_changed_option_is_said_in_one_line(saved: Callable, log: pytest.LogCaptureFixture) -> None:
    model = Rates({**ADAM, "lr": 1e-4}, STEPS)
    model.opt["train"]["ema_decay"] = 0.9
    model.opt["datasets"]["train"] = {"name": "faces", "batch_size_per_gpu": 4}
    options = copy.deepcopy(compared_options(model.opt))
    options["train"].update(pixel_opt={"type": "L1Loss"}, ema_decay=None)
    options["train"]["optim_g"]["lr"] = 1e-3
    options["datasets"]["train"]["batch_size_per_gpu"] = 2
    with_given_options(model, {**saved(), OPTIONS: options})
    (line,) = [record.getMessage() for record in log.records if "Changed" in record.getMessage()]
    assert line.split(": ", 1)[1] == (
        "train:optim_g:lr 0.001 -> 0.0001; datasets:train:batch_size_per_gpu 2 -> 4; "
        "train:ema_decay not set -> 0.9; train:pixel_opt {'type': 'L1Loss'} -> not set."
    )


def test_an_option_that_only_the_schedules_inner_phases_show_is_said(
    saved: Callable, log: pytest.LogCaptureFixture
) -> None:
    schedule = {"type": "OneCycleLR", "max_lr": 0.01, "total_steps": 20, "pct_start": 0.3}
    model = Rates(ADAM, {**schedule, "pct_start": 0.6})
    rates = resumed(model, saved(scheduler=schedule)).train(SAVED_AT + 1, 10)
    assert rates == Rates(ADAM, {**schedule, "pct_start": 0.6}).train(1, 10)[SAVED_AT:]
    assert "in effect from now on: train:scheduler: other options." in log.text
    log.clear()
    options = compared_options(Rates(ADAM, schedule).opt)
    with_given_options(Rates(ADAM, {**schedule, "pct_start": 0.6}), {**saved(scheduler=schedule), OPTIONS: options})
    assert "in effect from now on: train:scheduler:pct_start 0.3 -> 0.6." in log.text


def test_a_schedule_that_ends_before_the_training_is_refused() -> None:
    with pytest.raises(UserError, match=r"^train:scheduler:total_steps: 8 is below total_iter, 10\. Set it to 10\."):
        Rates(ADAM, {"type": "OneCycleLR", "max_lr": 0.01, "total_steps": 8})
    Rates(ADAM, {"type": "OneCycleLR", "max_lr": 0.01, "total_steps": 9}).train(1, 10)
    with pytest.raises(UserError, match=r"^train:scheduler:total_steps: 8 is below total_iter"):
        Rates(ADAM, {"type": "OneCycleLR", "max_lr": 0.01, "epochs": 4, "steps_per_epoch": 2})


def test_a_best_value_that_another_metric_or_set_chose_begins_anew(saved: Callable) -> None:
    model = Rates(ADAM, STEPS, METRICS)
    psnr, lpips = {"better": "higher", "val": 30.0, "iter": 4}, {"better": "lower", "val": 0.2, "iter": 2}
    new = {"better": "higher", "val": float("-inf"), "iter": -1}
    other_way = {"faces": {"lpips": lpips, "psnr": psnr}}  # a state of an earlier version, whose first metric was lpips
    best = with_given_options(model, {**saved(), "best_metric_results": copy.deepcopy(other_way)})
    assert best["best_metric_results"] == {"faces": {"psnr": new, "lpips": lpips}}
    options = copy.deepcopy(compared_options(model.opt))
    kept = {**saved(), "best_metric_results": copy.deepcopy(other_way), OPTIONS: options}
    assert with_given_options(model, kept)["best_metric_results"] == {"faces": {"psnr": psnr, "lpips": lpips}}
    options["datasets"] = {"val_0": {"name": "others"}, **options["datasets"]}
    kept["best_metric_results"] = copy.deepcopy(other_way)
    assert with_given_options(model, kept)["best_metric_results"] == {"faces": {"psnr": new, "lpips": lpips}}
