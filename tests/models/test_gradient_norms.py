"""Trainings that go astray with finite numbers."""

import random

import pytest
import torch

from dfpg_plugin.models.dfpg_model import DFPGModel
from dfpg_plugin.models.gradient_norms import LATEST, LEAST, AstrayError, GradientNorms
from dfpg_plugin.models.nonfinite import StepCheck

FAR = 1e5


def test_a_gradient_far_above_those_before_is_named_and_a_large_one_is_not() -> None:
    rng = random.Random(0)
    norms = GradientNorms(FAR)
    for i in range(LEAST):
        norms.add("the gradient of l_a", i, rng.uniform(0.1, 1))
    norms.add("the gradient of l_a", LEAST, 0.09 * FAR)
    with pytest.raises(AstrayError, match=rf"the gradient of l_a is 1\.0e\+06 at iteration 101, .* of the {LEAST + 1}"):
        norms.add("the gradient of l_a", LEAST + 1, 10 * FAR)


@pytest.mark.parametrize(("growth", "raises"), [(1.01, False), (1.05, True)])
def test_a_growth_is_judged_by_the_latest_gradients(growth: float, raises: bool) -> None:
    """Half of LATEST iterations of 1 % are 145 times, of 5 % 4e10 times."""
    norms = GradientNorms(FAR)
    try:
        for i in range(3 * LATEST):
            norms.add("g", i, growth**i)
    except AstrayError:
        assert raises
    else:
        assert not raises


@pytest.mark.parametrize("norms", [[1e-9] * (LEAST - 1), [0.0] * LATEST, [float("inf")] * LATEST], ids=len)
def test_little_or_nothing_to_compare_with_says_nothing(norms: list[float]) -> None:
    of_network = GradientNorms(FAR)
    for i, norm in enumerate([*norms, 1e30]):
        of_network.add("g", i, norm)


def test_networks_are_not_compared_with_each_other() -> None:
    norms = GradientNorms(FAR)
    for i in range(LATEST):
        norms.add("d", i, 1e-9)
        norms.add("g", i, 1e9)


@pytest.mark.parametrize("waits", [True, False], ids=["CPU", "GPU"])
def test_a_step_whose_gradient_runs_away_ends_the_training(waits: bool) -> None:
    """On a CPU before the update; on a GPU when something is logged or saved."""
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=0.0, fused=not waits)
    check = StepCheck(torch.device("cpu"), FAR)
    check.waits = waits

    def step(current_iter: int, norm: float) -> None:
        check.begin(current_iter)
        losses = {"l_a": torch.tensor(1.0)}
        weight.grad = torch.full((3,), norm) * check.factor(losses)
        check.update(losses, weight.grad.norm(), optimizer, optimizer.step, scaled=False)
        check.end()

    for i in range(LEAST):
        step(i, 1.0)
    check.settle()
    optimizer.param_groups[0]["lr"] = 1.0
    with pytest.raises(AstrayError, match=f"at iteration {LEAST}"):
        step(LEAST, 1e9)
        check.settle()
    assert torch.equal(weight, torch.ones(3)) == waits


def test_the_options_say_how_far_is_too_far(options: dict) -> None:
    options["train"]["astray_factor"] = 50
    norms = DFPGModel(options).check.norms
    for i in range(LEAST):
        norms.add("g", i, 1.0)
    norms.add("g", LEAST, 49.0)
    with pytest.raises(AstrayError):
        norms.add("g", LEAST + 1, 51.0)
