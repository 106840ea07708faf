"""TensorBoard gets a run's values by its options, not by its name."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from kit import write_yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dfpg_plugin.checks import UserError
from dfpg_plugin.options.curves import check_curves
from dfpg_plugin.runs.curves import message_logger, open_curves

TENSORBOARD, WANDB = {"use_tb_logger": True}, {"wandb": {"project": "faces", "resume_id": None}}


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


@pytest.mark.parametrize(
    ("logger", "missing", "message"),
    [
        (
            TENSORBOARD,
            "torch.utils.tensorboard",
            "logger:use_tb_logger: tensorboard is not installed. Run `pip install t",
        ),
        ({**TENSORBOARD, **WANDB}, "wandb", "logger:wandb: wandb is not installed. Run `pip install wandb`, or turn"),
        ({"use_tb_logger": False, **WANDB}, "", "logger:wandb: wandb gets the curves of TensorBoard. Set use_tb"),
    ],
)
def test_what_is_not_installed_is_said_before_anything_is_built(
    command: Callable, demo_options: dict, tmp_path: Path, monkeypatch, capsys, logger: dict, missing: str, message: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)  # as Python does for what can't be imported
    demo_options["logger"].update(logger)
    file = write_yaml(tmp_path / "t.yml", demo_options)
    for flags in (["--dry-run"], [], ["--stock"]):
        assert command("train", "-opt", file, *flags) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["t.yml"]


def test_a_folder_called_wandb_is_not_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    opt = {"logger": {**TENSORBOARD, **WANDB}, "debug": False}
    wandb = ModuleType("wandb")
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    with pytest.raises(UserError, match="wandb is not installed"):
        check_curves(opt)
    wandb.init = print  # type: ignore[attr-defined]
    check_curves(opt)


def test_wandb_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(opt: dict) -> None:
        raise Exception("api_key not configured\nmore")

    monkeypatch.setattr("dfpg_plugin.runs.curves.init_wandb_logger", fail)
    opt = {"name": "a", "logger": {**TENSORBOARD, **WANDB}, "debug": False, "root_path": str(tmp_path)}
    with pytest.raises(UserError, match=r"^logger:wandb: can't be started \(api_key not configured\)"):
        open_curves(opt)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("wandb", "started"),
    [
        ({"project": "faces"}, [("faces", "drawn", "never")]),
        ({"project": "others", "resume_id": "3f"}, [("others", "3f", "allow")]),
        ({"project": None, "resume_id": "3f"}, []),
        (None, []),
    ],
)
def test_wandb_is_started_for_the_project_and_the_run_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wandb: dict | None, started: list
) -> None:
    found: list[tuple] = []
    module = ModuleType("wandb")
    module.util = SimpleNamespace(generate_id=lambda: "drawn")  # type: ignore[attr-defined]
    module.init = lambda *, project, id, resume, **_: found.append((project, id, resume))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    opt = {"name": "a", "logger": {**TENSORBOARD, "wandb": wandb}, "debug": False, "root_path": str(tmp_path)}
    open_curves(opt).close()
    assert found == started
