"""What a signal asks of a training."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from multiprocessing import active_children
from pathlib import Path

import pytest
import torch
from kit import ROOT, for_sr_model, write_yaml
from torch import distributed
from torch.utils.data import DataLoader, Dataset

from dfpg_plugin.training import signals


@pytest.fixture
def handlers() -> Iterator[None]:
    """Put the handlers of the signals back, which a stopped training leaves ignored."""
    before = {number: signal.getsignal(number) for number in (*signals.STOPPING, signals.SAVING)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in signals.STOPPING]
    with signals.listening() as requests:
        os.kill(os.getpid(), signals.SAVING)
        requests.agree()
        assert (requests.save, requests.stop) == (1, 0)
        requests.agree()
        assert (requests.save, requests.stop) == (0, 0)
    assert [signal.getsignal(number) for number in signals.STOPPING] == before


@pytest.mark.parametrize("number", signals.STOPPING)
def test_repeats_of_either_signal_are_one_wish(number: int, handlers: None, capfd: pytest.CaptureFixture) -> None:
    with signals.listening() as requests:
        for repeat in (number, number, *signals.STOPPING):
            os.kill(os.getpid(), repeat)
        requests.agree()
        assert requests.stop == number
        assert not requests.save
    os.kill(os.getpid(), number)  # while the process ends
    told = capfd.readouterr().err.splitlines()
    assert len(told) == 1
    assert f"{signal.Signals(number).name}: the iteration is finished and saved" in told[0]
    assert f"A second signal after {signals.REPEAT_SECONDS:g} s ends it at once." in told[0]


def test_a_repeat_of_a_wish_that_another_process_told_does_not_end_this_one(handlers: None, monkeypatch) -> None:
    def all_reduce(wishes: torch.Tensor, *_: object) -> None:
        wishes[0] = signal.SIGTERM

    monkeypatch.setattr(signals.distributed, "all_reduce", all_reduce)
    with signals.listening() as requests:
        requests.group = object()
        requests.agree()
        os.kill(os.getpid(), signal.SIGTERM)
        assert requests.stop == signal.SIGTERM


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, (signal.SIGTERM, 0)), (signals.SAVING, (0, 1))])
def test_a_signal_that_comes_while_processes_agree_counts_the_next_time(
    handlers: None, monkeypatch, number: int, expected: tuple[int, int]
) -> None:
    signalled = []

    def all_reduce(*_: object) -> None:
        if not signalled:
            signalled.append(os.kill(os.getpid(), number))

    monkeypatch.setattr(signals.distributed, "all_reduce", all_reduce)
    with signals.listening() as requests:
        requests.group = object()
        requests.agree()
        assert (requests.stop, requests.save) == (0, 0)  # the others know nothing of it
        requests.agree()
        assert (requests.stop, requests.save) == expected


@pytest.fixture
def two_processes(handlers: None) -> Iterator[list[signals.Requests]]:
    """What two processes of a group are asked for: two threads, with gloo between them."""
    store, requests = distributed.HashStore(), [signals.Requests() for _ in range(2)]

    def join(rank: int) -> None:
        requests[rank].group = distributed.ProcessGroupGloo(store, rank, 2, timedelta(seconds=20))

    together(join)
    yield requests


def together(what: Callable[[int], object]) -> None:
    """Let two processes of a group do the same at a time."""
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(what, range(2)))


@pytest.mark.parametrize("asked", [0, 1])
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, (signal.SIGTERM, 0)), (signals.SAVING, (0, 1))])
def test_what_one_process_is_asked_for_all_do(
    two_processes: list[signals.Requests], asked: int, number: int, expected: tuple[int, int]
) -> None:
    def agree(rank: int) -> None:
        two_processes[rank].agree()

    together(agree)
    assert [(requests.stop, requests.save) for requests in two_processes] == [(0, 0)] * 2
    two_processes[asked].note(number, None)
    together(agree)
    assert [(requests.stop, requests.save) for requests in two_processes] == [expected] * 2
    together(agree)
    assert [(requests.stop, requests.save) for requests in two_processes] == [(expected[0], 0)] * 2


class Signalled(Dataset):
    """Sends every signal to the worker that reads it."""

    sent = (signal.SIGINT, signal.SIGTERM, signals.SAVING)

    def __len__(self) -> int:
        return len(self.sent)

    def __getitem__(self, place: int) -> int:
        os.kill(os.getpid(), self.sent[place])
        return int(self.sent[place])


def test_data_workers_outlive_every_signal_until_the_training_is_over() -> None:
    before = set(active_children())
    with signals.worker_signals() as ours:
        loader = DataLoader(
            Signalled(), batch_size=None, num_workers=1, worker_init_fn=ours.start_worker, persistent_workers=True
        )
        assert list(loader) == list(Signalled.sent)
        (worker,) = set(active_children()) - before
        assert worker.is_alive()
    try:
        worker.terminate()
        worker.join(20)
        assert worker.exitcode == 0
    finally:
        worker.kill()


@pytest.mark.parametrize("number", signals.STOPPING)
def test_a_deliberate_second_signal_ends_the_process_at_once(number: int) -> None:
    code = (
        "import os, sys, time; from dfpg_plugin.training import signals\n"
        "signals.REPEAT_SECONDS = 0.05\n"
        "with signals.listening():\n"
        " for _ in range(2): os.kill(os.getpid(), int(sys.argv[1])); print('noted', flush=True); time.sleep(0.1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(int(number))], capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert (done.returncode, done.stdout) == (-number, b"noted\n")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_training_saves_its_iteration_and_ends_with_the_shells_status(
    command: Callable, demo_options: dict, tmp_path: Path, monkeypatch, handlers: None, number: int, status: int
) -> None:
    from basicsr.models.sr_model import SRModel

    step = SRModel.optimize_parameters

    def and_signal(self: SRModel, current_iter: int) -> None:
        step(self, current_iter)
        if current_iter == 3:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(SRModel, "optimize_parameters", and_signal)
    options = for_sr_model(demo_options)
    options["train"]["total_iter"], options["logger"]["save_checkpoint_freq"] = 6, 1000
    assert command("train", "-opt", write_yaml(tmp_path / "small.yml", options)) == status
    files = {p.name for p in (tmp_path / "experiments" / "small").rglob("*") if p.suffix in (".pth", ".state")}
    assert files == {"3.state", "net_g_3.pth"}


def test_sigusr1_saves_and_goes_on(
    command: Callable, demo_options: dict, tmp_path: Path, two_faces: Path, monkeypatch
) -> None:
    from dfpg_plugin.models.dfpg_model import DFPGModel

    step = DFPGModel.optimize_parameters

    def and_signal(self: DFPGModel, current_iter: int) -> None:
        step(self, current_iter)
        if current_iter == 2:
            os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr(DFPGModel, "optimize_parameters", and_signal)
    demo_options["logger"]["save_checkpoint_freq"] = 1000
    demo_options["train"]["total_iter"] = 3
    demo_options["datasets"]["val"].update(faces=None, split=None, dataroot_gt=str(two_faces))
    assert command("train", "-opt", write_yaml(tmp_path / "small.yml", demo_options)) == 0
    run = tmp_path / "experiments" / "small"
    assert [p.name for p in (run / "training_states").glob("*.state")] == ["2.state"]
    assert (run / "models" / "net_g_latest.pth").is_file()
