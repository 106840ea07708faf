"""The fast training step on a GPU against the eager one."""

import copy
import logging
from pathlib import Path

import pytest
import torch
from basicsr.models import build_model
from kit import small_options
from torch.nn import functional as F

from dfpg_plugin.models import captured_step
from dfpg_plugin.models.captured_step import WARM_UP
from dfpg_plugin.models.dfpg_model import DFPGModel

pytestmark = pytest.mark.gpu

LOSSES = ("l_g_pix", "l_g_prior", "l_g_gan", "l_d_real", "l_d_fake")
EAGER = {"compile": False, "cuda_graph": False}
# with Adam's own 1e-8, weights whose gradient is nearly 0 move by the sign of a rounding error
ADAM = {"type": "Adam", "lr": 1e-4, "eps": 1e-4}
NO_PRIOR = {"prior_opt": None, "gan_opt": None, "optim_d": None}
TABLE_4: dict[str, tuple[dict, dict]] = {  # changes of the options, and of those under `train`
    "B1": ({"network_d": None, "network_prior": None, "prior_stream": False}, NO_PRIOR),
    "B2": ({"network_d": None, "prior_stream": False}, {**NO_PRIOR, "feature_opt": {"type": "MSELoss"}}),
    "B3": ({"network_d": None, "feature_transform": False}, {"gan_opt": None, "optim_d": None}),
    "B4": ({"network_d": None}, {"gan_opt": None, "optim_d": None}),
    "B5": ({"channel_attention": False}, {}),
    "B6": ({}, {}),
}


def build(tmp_path: Path, model: str = "B6", **train: object) -> DFPGModel:
    """Build a small DFPGModel of Table 4 on the GPU."""
    torch.manual_seed(0)
    folders = {key: str(tmp_path / key) for key in ("models", "training_states", "visualization")}
    opt = small_options()
    opt.update(num_gpu=1, dist=False, rank=0, is_train=True, path=folders)
    opt["network_g"].update(num_feat=32, num_block=2)
    opt["train"].update(optim_g=dict(ADAM), optim_d=dict(ADAM))
    changes, train_changes = copy.deepcopy(TABLE_4[model])
    for key in ("prior_stream", "feature_transform"):
        if key in changes:
            opt["network_g"][key] = changes.pop(key)
    if "channel_attention" in changes:
        opt["network_d"]["channel_attention"] = changes.pop("channel_attention")
    opt.update(changes)
    opt["train"].update({**train_changes, **train})
    opt["train"] = {key: value for key, value in opt["train"].items() if value is not None}
    if "use_checkpoint" in opt["train"]:
        opt["network_g"]["use_checkpoint"] = opt["train"].pop("use_checkpoint")
    return build_model({key: value for key, value in opt.items() if value is not None})


def train(model: DFPGModel, steps: int, size: int = 64) -> list[dict]:
    """Train on the same pairs, and return the logs."""
    generator = torch.Generator().manual_seed(0)
    logs = []
    for i in range(steps):
        gt = torch.rand(4, 3, size, size, generator=generator)
        gt = F.interpolate(F.avg_pool2d(gt, 4), scale_factor=4, mode="bicubic").clamp(0, 1)
        model.feed_data({"lq": F.avg_pool2d(F.pad(gt, (2, 2, 2, 2), mode="reflect"), 5, 1), "gt": gt})
        model.optimize_parameters(i + 1)
        logs.append(model.get_current_log())
    return logs


def most_different(a: list[dict], b: list[dict]) -> float:
    """Return the largest relative difference of a loss."""
    return max(abs(x[k] - y[k]) / abs(x[k]) for x, y in zip(a, b, strict=True) for k in LOSSES if k in x)


@pytest.mark.parametrize(
    ("precision", "bound"), [({"tf32": False}, 1e-5), ({"amp": "bfloat16"}, 0.02)], ids=["float32", "bfloat16"]
)
def test_the_fast_step_follows_the_eager_one(tmp_path: Path, precision: dict, bound: float, record_property) -> None:
    eager = train(build(tmp_path, tf32=False, **EAGER), 20)
    model = build(tmp_path, **precision)
    difference = most_different(eager, train(model, 20))
    record_property("largest relative difference of a loss", difference)
    assert set(model.captured.recorded) == {"norm_d", "norm_g"}
    assert difference < bound


@pytest.mark.parametrize("model", TABLE_4)
def test_every_model_of_table_4_is_recorded(tmp_path: Path, model: str) -> None:
    eager = train(build(tmp_path, model, tf32=False, **EAGER), WARM_UP + 4)
    fast = build(tmp_path, model, tf32=False)
    assert most_different(eager, train(fast, WARM_UP + 4)) < 1e-5
    assert len(fast.captured.recorded) == (2 if model in ("B5", "B6") else 1)


@pytest.mark.parametrize(
    "changes",
    [{"accumulate": 2}, {"use_checkpoint": True}, {"ema_decay": 0.9}, {"grad_clip_norm": 1e-2}],
    ids=["accumulate", "use_checkpoint", "ema", "clipped"],
)
def test_it_holds_with_what_else_a_step_can_do(tmp_path: Path, changes: dict) -> None:
    kept = {key: value for key, value in changes.items() if key not in ("use_checkpoint",)}
    eager = build(tmp_path, tf32=False, **EAGER, **kept)
    fast = build(tmp_path, tf32=False, **changes)
    assert most_different(train(eager, WARM_UP + 5), train(fast, WARM_UP + 5)) < 1e-5
    for a, b in zip(eager.net_g.parameters(), fast.net_g.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
    if "ema_decay" in changes:
        for a, b in zip(eager.net_g_ema.parameters(), fast.net_g_ema.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_a_batch_of_another_size_is_trained_too(tmp_path: Path) -> None:
    models = [build(tmp_path, tf32=False, **EAGER), build(tmp_path, tf32=False, compile=False)]
    logs = [train(m, WARM_UP + 2) + train(m, 1, size=96) + train(m, 2) for m in models]
    assert most_different(*logs) < 1e-5


def test_float16_scales_its_losses_when_recorded(tmp_path: Path) -> None:
    """The scale starts too large for the eager and for the recorded steps, so that both leave out updates."""
    models = [build(tmp_path, amp="float16", **how) for how in (EAGER, {})]
    for model in models:
        model.scaler = torch.amp.GradScaler("cuda", init_scale=2.0**30)
    logs = [train(model, 40) for model in models]
    assert 1 < models[1].scaler.get_scale() < 2.0**30
    assert models[0].scaler.get_scale() == models[1].scaler.get_scale()
    assert most_different(*logs) < 0.02
    assert logs[1][-1]["l_g_pix"] != logs[1][0]["l_g_pix"]


@pytest.mark.parametrize("how", [{}, {"amp": "bfloat16"}, {"amp": "float16"}, EAGER], ids=str)
def test_a_nan_is_named_and_nothing_updated(tmp_path: Path, how: dict) -> None:
    model = build(tmp_path, **how)
    train(model, WARM_UP + 2)
    before = [p.clone() for net in (model.net_g, model.net_d) for p in net.parameters()]
    gt = torch.rand(4, 3, 64, 64)
    model.feed_data({"lq": gt, "gt": gt * torch.nan})
    model.optimize_parameters(WARM_UP + 3)
    assert all(map(torch.equal, before, [p for net in (model.net_g, model.net_d) for p in net.parameters()]))
    with pytest.raises(FloatingPointError, match=f"l_d_real is nan at iteration {WARM_UP + 3}"):
        model.check.settle()
    train(model, 1)
    assert not all(map(torch.equal, before, [p for net in (model.net_g, model.net_d) for p in net.parameters()]))


def test_nothing_waits_for_the_gpu_inside_a_step(tmp_path: Path) -> None:
    model = build(tmp_path, grad_clip_norm=1.0, ema_decay=0.9)
    train(model, WARM_UP + 2)
    batch = torch.rand(4, 3, 64, 64).pin_memory()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for i in range(3):
            model.feed_data({"lq": batch, "gt": batch})
            model.optimize_parameters(WARM_UP + 3 + i)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("how", [{}, {"amp": "bfloat16"}], ids=str)
def test_two_runs_of_the_same_seed(tmp_path: Path, how: dict, record_property) -> None:
    """Not bitwise without torch's deterministic algorithms; how far apart they are is written down."""
    a, b = (train(build(tmp_path, **how), 20) for _ in range(2))
    difference = most_different(a, b)
    record_property("largest relative difference of a loss", difference)
    assert difference < (0.02 if how else 1e-3)


def test_with_deterministic_algorithms_two_runs_are_bitwise_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    models = [build(tmp_path, amp="bfloat16") for _ in range(2)]
    assert train(models[0], 10) == train(models[1], 10)
    assert all(map(torch.equal, models[0].net_g.parameters(), models[1].net_g.parameters()))


def test_a_step_that_needs_the_host_goes_on_kernel_by_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Waiting for the GPU inside the generator, as a user's network may, can't be recorded."""
    monkeypatch.setattr(captured_step, "get_root_logger", lambda: logging.getLogger("said"))
    eager = train(build(tmp_path, tf32=False, **EAGER), WARM_UP + 5)
    model = build(tmp_path, tf32=False)
    model.net_g.register_forward_hook(lambda *_: torch.cuda.synchronize())
    assert most_different(eager, train(model, WARM_UP + 5)) < 1e-5
    assert model.captured.recorder is None
    assert model.captured.recorded == {}
    assert "the step can't be recorded" in caplog.text
