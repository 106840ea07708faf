"""TensorBoard gets a run's values by its options, not by its name."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dfpg_plugin.training.curves import message_logger, open_curves


@pytest.mark.parametrize("name", ["a", "debug_a", "undebugged"])
@pytest.mark.parametrize("debug", [True, False])
def test_curves_are_written_unless_debug_is_asked_for(tmp_path: Path, name: str, debug: bool) -> None:
    logger = {"use_tb_logger": True, "print_freq": 1}
    opt = {"name": name, "debug": debug, "logger": logger, "root_path": str(tmp_path), "train": {"total_iter": 4}}
    writer = open_curves(opt)
    assert (writer is None) == debug
    values = {"epoch": 0, "iter": 2, "lrs": [1e-3], "time": 1.0, "data_time": 0.5, "l_g_pix": 0.25}
    message_logger(opt, 1, writer)(values)
    if writer is None:
        assert not list(tmp_path.iterdir())
        return
    writer.close()
    events = EventAccumulator(str(tmp_path / "tb_logger" / name)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("losses/l_g_pix")] == [(2, 0.25)]
