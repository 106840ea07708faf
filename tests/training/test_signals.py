"""What a signal asks of a training."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, write_yaml

from dfpg_plugin.training.signals import listening


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_a_request_and_handlers_are_put_back(number: int) -> None:
    before = signal.getsignal(number)
    with listening() as requests:
        os.kill(os.getpid(), number)
        requests.agree()
        assert requests.stop == number
        assert not requests.save
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_one_ends_the_process_at_once(number: int) -> None:
    code = (
        "import os, sys; from dfpg_plugin.training.signals import listening\n"
        "with listening():\n for _ in range(2): os.kill(os.getpid(), int(sys.argv[1]))\n print('still here')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(int(number))], capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert (done.returncode, done.stdout) == (-number, b"")


def test_sigusr1_saves_and_goes_on(command: Callable, demo_options: dict, tmp_path: Path, monkeypatch) -> None:
    from dfpg_plugin.models.dfpg_model import DFPGModel

    step = DFPGModel.optimize_parameters

    def and_signal(self: DFPGModel, current_iter: int) -> None:
        step(self, current_iter)
        if current_iter == 2:
            os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr(DFPGModel, "optimize_parameters", and_signal)
    demo_options["logger"]["save_checkpoint_freq"] = 1000
    demo_options["train"]["total_iter"] = 3
    assert command("train", "-opt", write_yaml(tmp_path / "small.yml", demo_options)) == 0
    run = tmp_path / "experiments" / "small"
    assert [p.name for p in (run / "training_states").glob("*.state")] == ["2.state"]
    assert (run / "models" / "net_g_latest.pth").is_file()
