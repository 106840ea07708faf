"""Steps whose values are not finite: left out at once on a CPU, else by the optimizer itself."""

import math

import pytest
import torch

from dfpg_plugin.models.finite import NonFiniteLossError, StepCheck

VALUES = (math.nan, math.inf, -math.inf)


def make(waits: bool, optimizer: type = torch.optim.Adam, **kwargs: object) -> tuple:
    weight = torch.nn.Parameter(torch.ones(3))
    check = StepCheck(torch.device("cpu"))
    check.waits = waits
    return weight, optimizer([weight], lr=0.1, **kwargs), check


def step(weight, optimizer, check: StepCheck, current_iter: int, loss: float, norm: float | None = 1.0) -> None:
    check.begin(current_iter)
    weight.grad = torch.ones(3) if norm is None or math.isfinite(norm) else torch.full((3,), norm)
    norm = None if norm is None else torch.tensor(norm)
    check.update({"l_a": torch.tensor(1.0), "l_b": torch.tensor(loss)}, norm, optimizer, optimizer.step)


@pytest.mark.parametrize("bad", VALUES)
def test_on_a_cpu_it_raises_before_the_update(bad: float) -> None:
    weight, optimizer, check = make(waits=True)
    with pytest.raises(NonFiniteLossError, match=r"l_b is \S+ at iteration 7") as caught:
        step(weight, optimizer, check, 7, bad)
    assert caught.value.iteration == 7
    with pytest.raises(NonFiniteLossError, match=r"the gradient of l_a \+ l_b is \S+ at iteration 8"):
        step(weight, optimizer, check, 8, 1.0, norm=bad)
    assert torch.equal(weight, torch.ones(3))
    step(weight, optimizer, check, 9, 1.0)
    assert not torch.equal(weight, torch.ones(3))


@pytest.mark.parametrize("bad", VALUES)
def test_where_the_host_does_not_wait_the_optimizer_leaves_the_update_out_and_the_error_comes_later(bad: float) -> None:
    weight, optimizer, check = make(waits=False, fused=True)
    step(weight, optimizer, check, 1, 1.0)
    before, moment = weight.detach().clone(), optimizer.state[weight]["exp_avg"].clone()
    step(weight, optimizer, check, 2, bad)
    assert torch.equal(weight, before)
    assert torch.equal(optimizer.state[weight]["exp_avg"], moment)
    assert optimizer.state[weight]["step"] == 1
    step(weight, optimizer, check, 3, 1.0)
    assert not torch.equal(weight, before)
    with pytest.raises(NonFiniteLossError, match=r"l_b is \S+ at iteration 2") as caught:
        check.begin(4)
    assert caught.value.iteration == 2
    check.begin(4)  # what was said is not said again


def test_settling_looks_at_everything_that_is_left() -> None:
    weight, optimizer, check = make(waits=False, fused=True)
    step(weight, optimizer, check, 1, math.nan)
    with pytest.raises(NonFiniteLossError, match="iteration 1"):
        check.settle()
    check.settle()


def test_an_iteration_with_a_bad_update_makes_no_later_one_and_is_reported_once() -> None:
    weight, optimizer, check = make(waits=False, fused=True)
    check.begin(1)
    for loss in (math.nan, 1.0, math.nan):
        weight.grad = torch.ones(3)
        check.update({"l": torch.tensor(loss)}, torch.tensor(1.0), optimizer, optimizer.step)
    assert torch.equal(weight, torch.ones(3))
    with pytest.raises(NonFiniteLossError):
        check.settle()
    check.settle()
    step(weight, optimizer, check, 2, 1.0)
    assert not torch.equal(weight, torch.ones(3))


def test_an_optimizer_that_can_not_leave_out_an_update_is_waited_for() -> None:
    weight, optimizer, check = make(waits=False, optimizer=torch.optim.RMSprop)
    with pytest.raises(NonFiniteLossError):
        step(weight, optimizer, check, 1, math.nan)
    assert torch.equal(weight, torch.ones(3))


def test_the_gradient_is_left_to_a_scaler() -> None:
    weight, optimizer, check = make(waits=True)
    step(weight, optimizer, check, 1, 1.0, norm=None)
    assert not torch.equal(weight, torch.ones(3))
