"""Steps whose kernels are recorded once and replayed, with a recorder that computes again instead of a GPU's."""

import copy
import logging
from collections.abc import Callable

import pytest
import torch
from basicsr.models import build_model
from torch.nn import functional as F

from dfpg_plugin.models.captured_step import WARM_UP, CapturedStep
from dfpg_plugin.models.dfpg_model import DFPGModel
from dfpg_plugin.models.microbatch import Estimate
from dfpg_plugin.speed.acceleration import Acceleration
from dfpg_plugin.speed.cuda_graphs import CudaRecorder


class ComputingAgain:
    """A recorder for a CPU: nothing is computed while it records, and results keep their places.

    It computes again in Python, so that what a graph would freeze stays alive here; tests/gpu has a GPU's own.
    """

    def __init__(self, model: DFPGModel) -> None:
        self.model = model
        self.recorded = self.replayed = 0

    def record(self, compute: Callable) -> tuple[Callable, tuple[dict, dict]]:
        is_first = self.recorded == 0
        self.recorded += 1
        nets = [net for net in (self.model.net_g, self.model.net_d) if net is not None]
        gradients = [(p, torch.full_like(p, torch.nan)) for net in nets for p in net.parameters() if p.requires_grad]
        for parameter, gradient in gradients:
            parameter.grad = gradient
        result: tuple[dict, dict] = ({}, {})

        def replay() -> None:
            self.replayed += 1
            if is_first:
                for part in self.model.captured.parts:
                    part.estimate = None
            for kept, computed in zip(result, compute(), strict=True):
                for name, value in computed.items():
                    kept.setdefault(name, torch.empty_like(value)).copy_(value)
            for parameter, gradient in gradients:
                if parameter.grad is not None:
                    gradient.copy_(parameter.grad)

        return replay, result


def build(options: dict, **train: object) -> DFPGModel:
    torch.manual_seed(0)
    options = copy.deepcopy(options)
    options["train"].update(train)
    return build_model(options)


def train(model: DFPGModel, steps: int, sizes: tuple[int, ...] = (24,)) -> list[dict]:
    """Train on the same pairs, of one size after the other, and return the logs."""
    generator = torch.Generator().manual_seed(0)
    logs = []
    for i in range(steps):
        size = sizes[i % len(sizes)]
        gt = torch.rand(4, 3, size, size, generator=generator)
        model.feed_data({"lq": F.avg_pool2d(F.pad(gt, (2, 2, 2, 2), mode="reflect"), 5, 1), "gt": gt})
        model.optimize_parameters(i + 1)
        logs.append(model.get_current_log())
    return logs


def without_discriminator(options: dict) -> dict:
    options = copy.deepcopy(options)
    del options["network_d"], options["train"]["gan_opt"], options["train"]["optim_d"]
    return options


@pytest.mark.parametrize(
    "changes",
    [{}, {"accumulate": 2}, {"ema_decay": 0.9}, {"grad_clip_norm": 1e-3}, {"amp": "float16"}],
    ids=["whole", "parts", "average", "clipped", "float16"],
)
@pytest.mark.parametrize("has_discriminator", [True, False])
def test_a_recorded_step_trains_as_one_that_is_not(options: dict, changes: dict, has_discriminator: bool) -> None:
    if not has_discriminator:
        options = without_discriminator(options)
    plain, captured = build(options, **changes), build(options, **changes)
    recorder = captured.captured.recorder = ComputingAgain(captured)
    assert train(captured, WARM_UP + 4) == train(plain, WARM_UP + 4)
    assert recorder.recorded == 1 + has_discriminator
    assert recorder.replayed == 4 * recorder.recorded
    for net in ("net_g", "net_d", "net_g_ema"):
        if getattr(plain, net, None) is not None:
            for a, b in zip(getattr(plain, net).parameters(), getattr(captured, net).parameters(), strict=True):
                assert torch.equal(a, b)
    assert torch.equal(plain.output, captured.output)


def test_batches_of_another_shape_are_computed_as_they_come(options: dict) -> None:
    sizes = (24, 24, 24, 24, 32, 24)
    plain, captured = build(options), build(options)
    recorder = captured.captured.recorder = ComputingAgain(captured)
    assert train(captured, 6, sizes) == train(plain, 6, sizes)
    assert recorder.replayed == 2 * 2  # D and G in iterations 4 and 6


def test_a_shape_is_recorded_only_after_its_own_warm_up(options: dict) -> None:
    """Kernels for the shape of an iteration that is recorded must have been chosen and compiled before."""
    model = build(options)
    recorder = model.captured.recorder = ComputingAgain(model)
    train(model, 5, (24, 32, 24, 32, 24))  # three of 24, two of 32
    assert recorder.recorded == 0
    train(model, 1, (32,))
    assert recorder.recorded == 0
    train(model, 1, (32,))
    assert recorder.recorded == 2
    assert model.captured.inputs[0].shape[-1] == 32


class FailingGraph:
    """torch.cuda.graph where a recording fails: it tells that there was an error, and leaves its stream current."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> None:
        torch.cuda.set_stream("the recording's")

    def __exit__(self, *_: object) -> None:
        raise RuntimeError("operation failed due to a previous error during capture")


def test_a_recording_that_fails_tells_the_cause_and_leaves_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = ["the training's"]
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(torch.cuda, "Stream", object)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: streams[-1])
    monkeypatch.setattr(torch.cuda, "set_stream", streams.append)
    monkeypatch.setattr(torch.cuda, "graph", FailingGraph)

    def compute() -> tuple[dict, dict]:
        raise ValueError("a loss looked at a number")

    with pytest.raises(ValueError, match="a loss looked at a number"):
        CudaRecorder().record(compute)
    assert streams[-1] == "the training's"
    with pytest.raises(RuntimeError, match="previous error during capture"):
        CudaRecorder().record(lambda: ({}, {}))


def test_a_recorded_step_leaves_out_what_is_not_finite(options: dict) -> None:
    model = build(options)
    model.captured.recorder = ComputingAgain(model)
    model.check.waits = False
    train(model, WARM_UP + 1)
    before = [p.clone() for net in (model.net_g, model.net_d) for p in net.parameters()]
    gt = torch.rand(4, 3, 24, 24)
    model.feed_data({"lq": gt, "gt": gt * torch.nan})
    model.optimize_parameters(WARM_UP + 2)
    assert all(map(torch.equal, before, [p for net in (model.net_g, model.net_d) for p in net.parameters()]))
    with pytest.raises(FloatingPointError, match=f"l_d_real is nan at iteration {WARM_UP + 2}"):
        model.check.settle()
    train(model, 1)
    assert not all(map(torch.equal, before, [p for net in (model.net_g, model.net_d) for p in net.parameters()]))


class Refusing(ComputingAgain):
    """Computes while it records, as a failing recording may have done in part, and then refuses."""

    def __init__(self, model: DFPGModel, refused: int) -> None:
        super().__init__(model)
        self.refused = refused

    def record(self, compute: Callable) -> tuple[Callable, tuple[dict, dict]]:
        if self.recorded < self.refused:
            return super().record(compute)
        for part in self.model.captured.parts:
            part.estimate = Estimate(torch.full_like(part.gt, torch.nan), [], [])  # memory that was never written
        raise RuntimeError("operation not permitted when stream is capturing\nmore lines")


@pytest.mark.parametrize("refused", [0, 1])
def test_a_step_that_can_not_be_recorded_is_computed_and_said_so(
    options: dict, refused: int, caplog: pytest.LogCaptureFixture
) -> None:
    plain, captured = build(options), build(options)
    captured.captured.recorder = Refusing(captured, refused)
    logging.getLogger("basicsr").addHandler(caplog.handler)
    try:
        logs = train(captured, WARM_UP + 3)
    finally:
        logging.getLogger("basicsr").removeHandler(caplog.handler)
    for a, b in zip(logs, train(plain, WARM_UP + 3), strict=True):
        assert a == pytest.approx(b, rel=1e-5)
    said = [record.message for record in caplog.records if "cuda_graph" in record.message]
    assert len(said) == 1
    assert "(operation not permitted when stream is capturing)" in said[0]
    assert captured.captured.recorder is None


class Foreign(torch.nn.Module):
    """A layer of another package, inside of a network of ours as in AdaptedNet."""


def test_memory_that_does_not_suffice_is_no_reason_to_go_on(options: dict) -> None:
    class Full(ComputingAgain):
        def record(self, compute: Callable) -> tuple[Callable, tuple[dict, dict]]:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model = build(options)
    model.captured.recorder = Full(model)
    with pytest.raises(torch.OutOfMemoryError):
        train(model, WARM_UP + 1)


@pytest.mark.parametrize(
    ("device", "asked", "processes", "foreign", "said"),
    [
        ("cpu", None, 1, False, None),
        ("cpu", True, 1, False, "there is no GPU"),
        ("cuda", False, 1, False, "train:cuda_graph is false"),
        ("cuda", None, 2, False, "several processes"),
        ("cuda", True, 2, False, "several processes"),
        ("cuda", None, 1, True, "Foreign is of another package"),
        ("cuda", None, 1, False, "recorded as CUDA graphs"),
        ("cuda", True, 1, True, "recorded as CUDA graphs"),
    ],
)
def test_the_log_says_whether_a_step_is_recorded_and_why_not(
    device: str,
    asked: bool | None,
    processes: int,
    foreign: bool,
    said: str | None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dfpg_plugin.archs.blocks import ResBlock
    from dfpg_plugin.speed import acceleration

    monkeypatch.setattr(acceleration, "CudaRecorder", lambda: "a recorder")
    monkeypatch.setattr(acceleration, "get_root_logger", lambda: logging.getLogger("said"))
    caplog.set_level(logging.INFO, "said")
    networks = [torch.nn.Sequential(ResBlock(16), Foreign() if foreign else torch.nn.Linear(1, 1))]
    recorder = Acceleration.read({"cuda_graph": asked}).recorder(torch.device(device), processes, networks)
    assert (recorder == "a recorder") is bool(said and said.startswith("recorded"))
    lines = [record.message for record in caplog.records]
    assert (said in lines[0]) if said else lines == []


def test_a_step_without_a_recorder_is_never_recorded() -> None:
    step = CapturedStep(None)
    images = torch.rand(2, 3, 8, 8)
    for _ in range(WARM_UP + 2):
        (part,) = step.begin(images, images, 1)
        assert part.lq.data_ptr() == images.data_ptr()
