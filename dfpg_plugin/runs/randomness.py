"""The random states of a run's processes, as plain values that a safe load accepts."""

import random
from collections.abc import Sequence

import numpy as np
import torch
from basicsr.utils import get_root_logger
from torch import distributed


def random_states() -> list[dict]:
    """Return the states of the global generators of Python, NumPy and torch: one dictionary for each rank, in order."""
    own = _own_state()
    if not distributed.is_initialized():
        return [own]
    states: list = [None] * distributed.get_world_size()
    distributed.all_gather_object(states, own)
    return states


def restore_random_state(states: Sequence[dict] | None, rank: int, world_size: int) -> None:
    """Set this process's generators to the states of its rank.

    ``states``: those of :func:`random_states`, or None. If there are none for ``world_size`` processes, the generators
    stay as they are, and the log warns.
    """
    if not states or len(states) != world_size:
        found = f"of {len(states)} processes, not {world_size}" if states else "missing"
        get_root_logger().warning(f"Random states: {found}; what the network draws differs from an unbroken run.")
        return
    state = states[rank]
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _own_state() -> dict:
    version, words, gauss = random.getstate()
    of_numpy = np.random.get_state(legacy=False)
    of_numpy["state"]["key"] = of_numpy["state"]["key"].tolist()
    state = {
        "python": [version, list(words), gauss],
        "numpy": of_numpy,
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state
