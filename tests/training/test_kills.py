"""Real trainings, killed at any moment and resumed: they have to end like one that was never interrupted, bit by bit.

A few kills run here by default; ``-m harness`` runs the twenty, and the five of two processes, that the README states.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
import torch
import yaml
from kit import ROOT, small_options, write_yaml

from dfpg_plugin.runs.checkpoints import STAGING

PARTS = '''
import torch
from torch import nn
from basicsr.utils.registry import ARCH_REGISTRY


@ARCH_REGISTRY.register()
class Noisy(nn.Module):
    """Draws from every generator, and has buffers."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3))
        self.last = nn.utils.spectral_norm(nn.Conv2d(8, 3, 3, 1, 1))

    def forward(self, x):
        import random
        import numpy

        return x + (1 + 0.01 * random.random() + 0.01 * numpy.random.rand()) * self.last(self.body(x))


@ARCH_REGISTRY.register()
class Busy(Noisy):
    """Computes for many times as long."""

    def forward(self, x):
        for _ in range(100):
            super().forward(x)
        return super().forward(x)
'''
TOTAL = 24
COMMAND = (sys.executable, "-m", "dfpg_cli.main")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


@dataclass
class Trainings:
    """A folder with an option file; trainings below it are processes of their own."""

    folder: Path
    processes: int = 1
    running: list[subprocess.Popen] = field(default_factory=list)

    def start(self, name: str, *arguments: str) -> subprocess.Popen:
        """Start a training that goes on where the last one of that name was."""
        command = [*COMMAND, "train", "-opt", "small.yml", "--auto_resume", *arguments]
        if self.processes > 1:
            command = [*TORCHRUN, "-m", *command[2:], "--launcher", "pytorch"]
        log = open(self.folder / f"{name}.out", "a")  # noqa: SIM115 - the process's
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{self.folder}"}
        command += ["--force_yml", f"name={name}"]
        process = subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        self.running.append(process)
        return process

    def kill(self) -> None:
        """Kill the last training, whatever processes it has: torchrun gives each a session of its own."""
        process = self.running[-1]
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for group in (*(map(int, children) if self.processes > 1 else ()), process.pid):
            os.killpg(group, signal.SIGKILL)
        process.wait()

    def finish(self, name: str) -> None:
        """Run to the end."""
        process = self.start(name)
        assert process.wait(600) == 0, (self.folder / f"{name}.out").read_text()[-3000:]

    def iterations(self, name: str) -> list[int]:
        """Return the iterations that all trainings of a name have logged, in their order."""
        text = "".join(p.read_text() for p in sorted((self.folder / "experiments" / name).glob("train_*.log")))
        return [int(n) for n in re.findall(r"iter:\s*([\d,]+), ", text)]

    def wait_for(self, name: str, count: int) -> None:
        """Wait until so many iterations are logged."""
        while len(self.iterations(name)) < count:
            assert self.running[-1].poll() is None, (self.folder / f"{name}.out").read_text()[-3000:]
            time.sleep(0.02)

    def wait_for_save(self, name: str) -> None:
        """Wait until a checkpoint is being written, if the training has not ended before."""
        while self.running[-1].poll() is None and not (self.folder / "experiments" / name / STAGING).exists():
            time.sleep(0.001)

    def result(self, name: str) -> dict:
        """Return everything that the last iteration left, and every value that was logged, by iteration."""
        run = self.folder / "experiments" / name
        files = [
            *run.glob("models/net_*_latest.pth"),
            *run.glob("models/net_*_best.pth"),
            run / f"training_states/{TOTAL}.state",
        ]
        content = {str(f.relative_to(run)): torch.load(f, weights_only=True) for f in files}
        logged: dict[str, set[str]] = {}
        for log in run.glob("train_*.log"):
            for number, values in re.findall(r"iter:\s*([\d,]+), .*?\] (\w+: .*)", log.read_text()):
                logged.setdefault(number, set()).add(re.sub(r"^.*\] ", "", values))
        assert len(logged) == TOTAL
        return {**content, "logged": logged}


@pytest.fixture
def trainings(tmp_path: Path, eight_faces: Path) -> Iterator[Trainings]:
    """A small training of a network with dropout, BatchNorm and spectral norm, that saves every second iteration."""
    (tmp_path / "noisy_parts.py").write_text(PARTS)
    opt = small_options()
    opt.update(model_type="SRModel", network_g={"type": "Noisy"}, plugins=["noisy_parts"])
    for key in ("network_d", "network_prior"):
        del opt[key]
    opt["path"] = {}
    opt["train"] = {
        "total_iter": TOTAL, "ema_decay": 0.9, "warmup_iter": 5, "pixel_opt": {"type": "L1Loss"},
        "optim_g": {"type": "Adam", "lr": 1e-3}, "scheduler": {"type": "MultiStepLR", "milestones": [9], "gamma": 0.5},
    }  # fmt: skip
    for phase in ("train", "val"):
        opt["datasets"][phase].update(faces=None, split=None, dataroot_gt=str(eight_faces))
    opt["datasets"]["train"]["num_worker_per_gpu"] = 2
    opt["val"]["val_freq"] = 5
    write_yaml(tmp_path / "small.yml", opt)
    made = Trainings(tmp_path)
    yield made
    if made.running and made.running[-1].poll() is None:
        made.kill()


def same(a: object, b: object) -> bool:
    """Compare nested values bit by bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))  # type: ignore[arg-type]
    return a == b


def kill_until_done(trainings: Trainings, kills: int, seed: int) -> int:
    """Kill a training ``kills`` times at random moments, and again and again resume it; return how often it ended."""
    random = Random(seed)
    trainings.finish("whole")
    whole = trainings.result("whole")
    ended = 0
    for number in range(kills):
        name = f"killed_{number}"
        trainings.start(name)
        trainings.wait_for(name, random.randrange(1, TOTAL - 2))
        if number % 2:  # inside a save
            trainings.wait_for_save(name)
        else:
            time.sleep(random.uniform(0, 0.2))
        trainings.kill()
        trainings.finish(name)
        ended += same(trainings.result(name), whole)
    return ended


@pytest.mark.slow
def test_a_killed_training_ends_like_one_that_was_not(trainings: Trainings) -> None:
    assert kill_until_done(trainings, kills=3, seed=0) == 3


@pytest.mark.harness
def test_twenty_kills(trainings: Trainings) -> None:
    assert kill_until_done(trainings, kills=20, seed=1) == 20


@pytest.mark.harness
def test_five_kills_of_two_processes(trainings: Trainings) -> None:
    trainings.processes = 2
    options = yaml.safe_load((trainings.folder / "small.yml").read_text())
    write_yaml(trainings.folder / "small.yml", {**options, "model_type": "DFPGModel"})  # SRModel needs GPUs for it
    assert kill_until_done(trainings, kills=5, seed=2) == 5


@pytest.mark.slow
def test_a_signal_ends_a_training_after_a_checkpoint(trainings: Trainings) -> None:
    trainings.finish("whole")
    for number in (signal.SIGTERM, signal.SIGINT):
        name = f"stopped_{number}"
        process = trainings.start(name, "--force_yml", "logger:save_checkpoint_freq=1000")
        trainings.wait_for(name, 4)
        os.killpg(process.pid, number)  # as Ctrl-C does, to the data workers too
        assert process.wait(60) == 128 + number
        (state,) = (trainings.folder / "experiments" / name / "training_states").glob("*.state")
        assert int(state.stem) == trainings.iterations(name)[-1]
        trainings.finish(name)
        assert same(trainings.result(name), trainings.result("whole"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_is_sent_again_and_again_is_one_wish(trainings: Trainings, number: int) -> None:
    options = yaml.safe_load((trainings.folder / "small.yml").read_text())
    options["network_g"] = {"type": "Busy"}
    options["logger"]["save_checkpoint_freq"] = 1000
    write_yaml(trainings.folder / "small.yml", options)
    process = trainings.start("repeated")
    trainings.wait_for("repeated", 2)
    for _ in range(5):  # as `timeout` and a terminal do: to the process, and to the data workers too
        process.send_signal(number)
        time.sleep(0.02)
        os.killpg(process.pid, number)
        time.sleep(0.02)
    assert process.wait(60) == 128 + number
    (state,) = (trainings.folder / "experiments" / "repeated" / "training_states").glob("*.state")
    assert int(state.stem) == trainings.iterations("repeated")[-1]
    (log,) = (trainings.folder / "experiments" / "repeated").glob("train_*.log")
    assert log.read_text().count("A second signal after 5 s ends it at once.") == 1
