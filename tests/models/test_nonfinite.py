"""Steps whose values are not finite: left out at once on a CPU, else by the optimizer itself."""

import contextlib
import math
from pathlib import Path

import pytest
import torch
from two_processes import in_two_processes

from dfpg_plugin.models import nonfinite
from dfpg_plugin.models.nonfinite import NonFiniteLossError, StepCheck

VALUES = (math.nan, math.inf, -math.inf)


def make(waits: bool, optimizer: type = torch.optim.Adam, **kwargs: object) -> tuple:
    weight = torch.nn.Parameter(torch.ones(3))
    check = StepCheck(torch.device("cpu"), astray_factor=1e5)
    check.waits = waits
    return weight, optimizer([weight], lr=0.1, **kwargs), check


def step(weight, optimizer, check: StepCheck, current_iter: int, loss: float, norm: float = 1.0) -> None:
    """One iteration of one update, as a model makes it."""
    check.begin(current_iter)
    losses = {"l_a": torch.tensor(1.0), "l_b": torch.tensor(loss)}
    weight.grad = torch.full((3,), norm) * check.factor(losses)
    check.update(losses, weight.grad.norm(), optimizer, optimizer.step, scaled=False)
    check.end()


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
        check.settle()
    assert caught.value.iteration == 2
    check.settle()  # what was said is not said again


def test_each_bad_iteration_is_named_in_its_turn() -> None:
    weight, optimizer, check = make(waits=False, fused=True)
    for current_iter, loss in enumerate((1.0, math.nan, 1.0, math.inf, 1.0), start=1):
        step(weight, optimizer, check, current_iter, loss)
    for bad in (2, 4):
        with pytest.raises(NonFiniteLossError, match=f"at iteration {bad}"):
            check.settle()
    check.settle()
    assert optimizer.state[weight]["step"] == 3


def test_values_do_not_wait_for_ever_where_nothing_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nonfinite, "MOST_ITERATIONS", 3)
    weight, optimizer, check = make(waits=False, fused=True)
    for current_iter, loss in enumerate((math.nan, 1.0, 1.0), start=1):
        step(weight, optimizer, check, current_iter, loss)
    with pytest.raises(NonFiniteLossError, match="at iteration 1"):
        check.begin(4)
    check.begin(4)


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
        losses = {"l": torch.tensor(loss)}
        weight.grad = torch.ones(3) * check.factor(losses)
        check.update(losses, weight.grad.norm(), optimizer, optimizer.step, scaled=False)
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


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad, torch.optim.SGD])
def test_every_fused_optimizer_goes_on_after_an_update_that_was_left_out_as_if_it_had_not_been(kind: type) -> None:
    results = []
    for losses in ([1.0, 1.0], [math.nan, 1.0, math.nan, 1.0]):
        weight, optimizer, check = make(waits=False, optimizer=kind, fused=True)
        for i, loss in enumerate(losses):
            with contextlib.suppress(NonFiniteLossError):
                step(weight, optimizer, check, 10 * i, loss)
        results.append(weight.detach())
    torch.testing.assert_close(*results)


def test_overflows_of_each_optimizer_are_counted_for_itself() -> None:
    """D's update, which is made, does not hide that the generator's never is."""
    _, optimizer, check = make(waits=False, fused=True)
    other = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))], lr=0.1, fused=True)
    losses = {"l": torch.tensor(1.0)}
    for current_iter in range(1, 27):
        check.settle()  # 25 in a row are no error
        check.begin(current_iter)
        check.update(losses, torch.tensor(1.0), other, lambda: None, scaled=True)
        check.update(losses, torch.tensor(math.inf), optimizer, lambda: None, scaled=True)
    with pytest.raises(NonFiniteLossError, match="the gradient of l is inf at iteration 26"):
        check.settle()


@pytest.mark.parametrize("waits", [True, False])
def test_with_a_scaler_an_infinite_loss_changes_nothing_and_a_gradient_may_overflow(waits: bool) -> None:
    weight, optimizer, check = make(waits, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)

    def scaled_step(current_iter: int, loss: float, slope: float = 1.0) -> None:
        check.begin(current_iter)
        optimizer.zero_grad()
        losses = {"l": torch.tensor(loss)}
        total = (weight * slope).sum() * check.factor(losses)
        scaler.scale(total).backward()
        scaler.unscale_(optimizer)
        check.update(losses, weight.grad.norm(), optimizer, lambda: scaler.step(optimizer), scaled=True)
        scaler.update()
        check.end()

    with pytest.raises(NonFiniteLossError, match="l is inf at iteration 1"):
        scaled_step(1, math.inf)
        check.settle()
    assert torch.equal(weight, torch.ones(3))
    scaled_step(2, 1.0, slope=math.inf)
    assert torch.equal(weight, torch.ones(3))
    assert scaler.get_scale() == 1.0
    scaled_step(3, 1.0)
    check.settle()
    assert not torch.equal(weight, torch.ones(3))
    for first in (100, 200):
        for current_iter in range(first, first + 20):  # not in a row
            scaled_step(current_iter, 1.0, slope=math.nan)
        scaled_step(first + 20, 1.0)
    check.settle()
    with pytest.raises(NonFiniteLossError, match="the gradient of l is nan"):
        for current_iter in range(4, 4 + 26):
            scaled_step(current_iter, 1.0, slope=math.nan)
        check.settle()


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_value_of_one_process_stops_the_update_of_all(tmp_path: Path, waits: bool, bad: float) -> None:
    def train(rank: int) -> tuple:
        weight, optimizer, check = make(waits, fused=True)
        check.world_size = 2
        weights, message = [], ""
        for current_iter, loss in enumerate((1.0, bad if rank == 1 else 1.0, 1.0), start=1):
            try:
                step(weight, optimizer, check, current_iter, loss)
                if current_iter == 2:
                    check.settle()
            except NonFiniteLossError as error:
                message = str(error)
            weights.append(weight.tolist())
        return weights, message

    (weights, told), (others, own) = in_two_processes(train, tmp_path)
    assert weights == others
    assert weights[0] == weights[1] != weights[2]
    assert told.startswith("l_b of process 1 is not finite at iteration 2.")
    assert own.startswith(f"l_b is {bad} at iteration 2.")
