"""The random states of a run's processes."""

import random

import numpy as np
import pytest
import torch
from basicsr.utils import get_root_logger

from dfpg_plugin.runs.randomness import random_states, restore_random_state


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), torch.rand(1).item()


def states_and_draws() -> tuple[list[dict], list[tuple]]:
    """Return what two processes have, and the numbers that each draws then."""
    states, drawn = [], []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        states += random_states()
        drawn.append(draw())
    return states, drawn


def test_each_process_goes_on_with_its_own_numbers() -> None:
    states, drawn = states_and_draws()
    assert all(one != two for one, two in zip(*drawn, strict=True))
    for rank in (0, 1, 0):
        restore_random_state(states, rank, 2)
        assert draw() == drawn[rank]


@pytest.mark.parametrize(
    ("count", "said"), [(0, "missing"), (1, "of 1 processes, not 3"), (2, "of 2 processes, not 3")]
)
def test_states_of_another_number_of_processes_are_left_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, count: int, said: str
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(get_root_logger(), "warning", lines.append)
    states, drawn = states_and_draws()
    restore_random_state(states, 0, 2)
    restore_random_state(states[:count] or None, 0, 3)
    assert draw() == drawn[0]
    assert len(lines) == 1
    assert said in lines[0]
