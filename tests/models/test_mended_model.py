"""Each defect of BasicSR's base model that a subclass mends: docs/basicsr_defects.md."""

import copy
from pathlib import Path

import pytest
import torch
from basicsr.models.base_model import BaseModel
from basicsr.models.sr_model import SRModel
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn
from torch.nn import functional as F
from two_processes import in_two_processes

from dfpg_plugin.checks import UserError
from dfpg_plugin.models.mended_model import MendedModel
from dfpg_plugin.speed.acceleration import Acceleration


class BufferedNet(nn.Module):
    """A small network with BatchNorm's buffers; at stride ``stride`` it can't take other sizes than multiples."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 4, stride, stride)
        self.norm = nn.BatchNorm2d(4)
        self.up = nn.ConvTranspose2d(4, 3, stride, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(self.norm(self.down(x)))


class Watched(nn.Module):
    """Enlarge ``scale`` times; remember the first pixel of what comes in, and the precision of a convolution."""

    def __init__(self, scale: int = 1) -> None:
        super().__init__()
        self.scale = scale
        self.conv = nn.Conv2d(3, 3, 1)
        self.corners: list[list[int]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.corners.append(x[0, :2, 0, 0].int().tolist())
        self.precision = self.conv(x).dtype
        return F.interpolate(x, scale_factor=self.scale).to(self.precision)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (BufferedNet, Watched):
        monkeypatch.setitem(ARCH_REGISTRY._obj_map, kind.__name__, kind)


def options(tmp_path: Path, **train: object) -> dict:
    folders = {key: str(tmp_path / key) for key in ("models", "training_states", "visualization")}
    for folder in folders.values():
        Path(folder).mkdir(exist_ok=True)
    return {
        "num_gpu": 0, "dist": False, "rank": 0, "is_train": True, "scale": 1, "name": "t",
        "network_g": {"type": "BufferedNet"},
        "path": folders,
        "val": {"metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}}},
        "train": {
            "pixel_opt": {"type": "L1Loss"}, "optim_g": {"type": "Adam", "lr": 1e-2},
            "scheduler": {"type": "MultiStepLR", "milestones": [6], "gamma": 0.5}, **train,
        },
    }  # fmt: skip


def build(tmp_path: Path, **train: object) -> MendedModel:
    return MendedModel(copy.deepcopy(options(tmp_path, **train)))


def step(model: MendedModel, current_iter: int = 1) -> None:
    model.feed_data({"lq": torch.rand(2, 3, 8, 8), "gt": torch.rand(2, 3, 8, 8)})
    model.optimize_parameters(current_iter)


def test_ema_follows_the_buffers(tmp_path: Path) -> None:
    model = build(tmp_path, ema_decay=0.9)
    weights = [model.net_g.up.weight.detach().clone()]
    for current_iter in range(1, 4):
        step(model, current_iter)
        weights.append(model.net_g.up.weight.detach().clone())
    average = weights[0]
    for w in weights[1:]:
        average = 0.9 * average + 0.1 * w
    torch.testing.assert_close(model.net_g_ema.up.weight, average)
    torch.testing.assert_close(model.net_g_ema.norm.running_var, model.net_g.norm.running_var)
    assert model.net_g_ema.norm.num_batches_tracked == 3


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ({"type": "MultiStepLR", "milestones": [6], "gamma": 0.5}, lambda i: 1.0 if i <= 6 else 0.5),
        ({"type": "StepLR", "step_size": 2, "gamma": 0.9}, lambda i: 0.9 ** ((i - 1) // 2)),
        ({"type": "ExponentialLR", "gamma": 0.99}, lambda i: 0.99 ** (i - 1)),
        (None, lambda i: 1.0),
    ],
    ids=["MultiStepLR", "StepLR", "ExponentialLR", "none"],
)
@pytest.mark.parametrize("warmup", [-1, 4])
def test_any_scheduler_has_a_warm_up_that_ends(tmp_path: Path, scheduler, expected, warmup: int) -> None:
    model = build(tmp_path, scheduler=scheduler)
    rates = []
    for current_iter in range(1, 9):
        model.update_learning_rate(current_iter, warmup)
        rates.append(model.get_current_learning_rate()[0] / 1e-2)
        model.optimizer_g.step()
    want = [expected(i) * (i / warmup if i < warmup else 1) for i in range(1, 9)]
    assert rates == pytest.approx(want)


def test_warm_up_survives_a_resume(tmp_path: Path) -> None:
    model, resumed = build(tmp_path), build(tmp_path)
    for current_iter in (1, 2):
        model.update_learning_rate(current_iter, 4)
        model.optimizer_g.step()
    model.save_training_state(0, 2)
    resumed.resume_training(torch.load(tmp_path / "training_states" / "2.state", weights_only=True))
    for current_iter in (3, 4, 5, 6, 7):
        for m in (model, resumed):
            m.update_learning_rate(current_iter, 4)
            m.optimizer_g.step()
        assert resumed.get_current_learning_rate() == model.get_current_learning_rate()
    assert model.get_current_learning_rate() == [pytest.approx(0.5e-2)]


def test_a_resumed_model_goes_on_with_the_rate_that_is_given(tmp_path: Path) -> None:
    model, resumed = build(tmp_path), build(tmp_path, optim_g={"type": "Adam", "lr": 1e-3})
    for current_iter in (1, 2):
        model.update_learning_rate(current_iter)
        model.optimizer_g.step()
    model.save_training_state(0, 2)
    resumed.resume_training(torch.load(tmp_path / "training_states" / "2.state", weights_only=True))
    resumed.update_learning_rate(3)
    assert resumed.get_current_learning_rate() == [pytest.approx(1e-3)]


@pytest.mark.parametrize("name", ["AdamW", "SGD", "Adam", "RMSprop"])
def test_any_optimizer_can_be_named(tmp_path: Path, name: str) -> None:
    assert type(build(tmp_path, optim_g={"type": name, "lr": 1e-3}).optimizer_g).__name__ == name


def test_unknown_optimizers_and_schedulers_are_answered_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'AdmaW'.*Did you mean AdamW"):
        build(tmp_path, optim_g={"type": "AdmaW", "lr": 1e-3})
    with pytest.raises(UserError, match="'ReduceLROnPlateau' is not"):
        build(tmp_path, scheduler={"type": "ReduceLROnPlateau"})
    with pytest.raises(UserError, match=r"'StepRL'.*Did you mean StepLR"):
        build(tmp_path, scheduler={"type": "StepRL"})


@pytest.mark.parametrize(("height", "width"), [(9, 11), (8, 8)])
def test_other_sizes_are_padded_and_cropped(tmp_path: Path, height: int, width: int) -> None:
    opt = options(tmp_path)
    opt["network_g"] = {"type": "BufferedNet", "stride": 4}
    opt["val"]["pad_to"] = 4
    model = MendedModel(opt)
    model.feed_data({"lq": torch.rand(1, 3, height, width)})
    model.test()
    assert model.output.shape == (1, 3, height, width)
    assert model.net_g.training


def watched(tmp_path: Path, scale: int = 1, **val: object) -> MendedModel:
    opt = options(tmp_path)
    opt["network_g"], opt["scale"] = {"type": "Watched", "scale": scale}, scale
    opt["val"].update(val)
    return MendedModel(opt)


@pytest.mark.parametrize("with_average", [True, False])
def test_validation_restores_with_the_averaged_weights_and_buffers_where_there_are_any(
    tmp_path: Path, with_average: bool
) -> None:
    model = build(tmp_path, ema_decay=0.9 if with_average else 0)
    nets = [model.net_g, model.net_g_ema] if with_average else [model.net_g]
    for net in nets:
        for tensor in (*net.parameters(), net.norm.running_mean, net.norm.running_var):
            tensor.detach().copy_(torch.rand_like(tensor) + 0.5)
    wanted = {name: value.clone() for name, value in nets[-1].state_dict().items()}
    x = torch.rand(2, 3, 7, 5)
    model.feed_data({"lq": x})
    model.test()
    hidden = F.conv2d(x.double(), wanted["down.weight"].double(), wanted["down.bias"].double())
    mean, var, gamma, beta = (
        wanted[f"norm.{name}"].double().view(-1, 1, 1) for name in ("running_mean", "running_var", "weight", "bias")
    )
    hidden = (hidden - mean) / (var + 1e-5).sqrt() * gamma + beta
    expected = F.conv_transpose2d(hidden, wanted["up.weight"].double(), wanted["up.bias"].double())
    torch.testing.assert_close(model.output, expected.float())
    torch.testing.assert_close(nets[-1].state_dict(), wanted, rtol=0, atol=0)  # no statistics were counted
    assert model.net_g.training


@pytest.mark.parametrize(("amp", "precision"), [(None, "float32"), ("bfloat16", "bfloat16"), ("float16", "float16")])
def test_validation_computes_in_the_precision_asked_for_and_returns_float32(
    tmp_path: Path, amp: str | None, precision: str
) -> None:
    model = watched(tmp_path, amp=amp)
    model.feed_data({"lq": torch.rand(1, 3, 6, 5)})
    model.test()
    assert model.net_g.precision == getattr(torch, precision)
    assert model.output.dtype == torch.float32


@pytest.mark.parametrize(
    ("val", "tops", "lefts"),
    [
        ({"tile": 70}, [0, 10], [0, 25, 50]),  # by default they overlap by 32 px
        ({"tile": 70, "tile_overlap": None, "pad_to": None}, [0, 10], [0, 25, 50]),  # which stands for the default
        ({"tile": 70, "tile_overlap": 16}, [0, 10], [0, 50]),
        ({"tile": 40, "tile_overlap": 8}, [0, 20, 40], [0, 27, 53, 80]),
        ({"tile": 40, "tile_overlap": 0}, [0, 40], [0, 40, 80]),
        ({}, [0], [0]),
    ],
)
def test_tiles_begin_where_size_and_overlap_of_the_options_put_them(
    tmp_path: Path, val: dict, tops: list[int], lefts: list[int]
) -> None:
    model = watched(tmp_path, **val)
    y, x = torch.meshgrid(torch.arange(80.0), torch.arange(120.0), indexing="ij")
    model.feed_data({"lq": torch.stack([y, x, y * x])[None]})
    model.test()
    assert model.net_g.corners == [[top, left] for top in tops for left in lefts]
    torch.testing.assert_close(model.output, model.lq)


def test_tiles_of_a_network_that_enlarges_are_padded_cropped_and_put_together(tmp_path: Path) -> None:
    model = watched(tmp_path, scale=2, tile=32, tile_overlap=8, pad_to=5)
    image = torch.rand(2, 3, 33, 71)
    model.feed_data({"lq": image})
    model.test()
    assert len(model.net_g.corners) == 6
    torch.testing.assert_close(model.output, F.interpolate(image, scale_factor=2))


def test_logged_values_are_means_over_the_processes(tmp_path: Path) -> None:
    model = build(tmp_path)
    model.opt.update(dist=True, world_size=2)

    def reduced(rank: int) -> dict:
        losses = ({"l_a": torch.tensor(1.0), "l_b": torch.tensor([2.0, 4.0])},
                  {"l_a": torch.tensor(4.0), "l_b": torch.tensor([5.0, 7.0])})  # fmt: skip
        return {name: value.item() for name, value in model.reduce_loss_dict(losses[rank]).items()}

    assert in_two_processes(reduced, tmp_path) == [{"l_a": 2.5, "l_b": 4.5}] * 2
    model.opt["dist"] = False
    assert reduced(1) == {"l_a": 4, "l_b": 6}


def test_validation_uses_the_network_below_the_wrapper(tmp_path: Path) -> None:
    model = build(tmp_path)

    class Wrapper(torch.nn.DataParallel):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise AssertionError("the wrapper was called")

    model.net_g = Wrapper(model.net_g)
    model.feed_data({"lq": torch.rand(1, 3, 8, 8)})
    model.test()
    assert model.output.shape == (1, 3, 8, 8)


def test_several_processes_on_cpus_share_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dfpg_plugin.models import mended_model

    wrapped = []
    monkeypatch.setattr(mended_model, "DistributedDataParallel", lambda net, **_: wrapped.append(net) or net)
    MendedModel({**options(tmp_path), "dist": True})
    assert len(wrapped) == 1


class HalfUsed(nn.Module):
    """A network with a layer that no image passes."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.used(x)


@pytest.mark.parametrize("searches", [True, False])
def test_parameters_without_a_gradient_are_searched_for_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, searches: bool
) -> None:
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, "HalfUsed", HalfUsed)
    opt = {**options(tmp_path), "dist": True, "world_size": 1, "find_unused_parameters": searches}
    opt["network_g"] = {"type": "HalfUsed"}
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        model = MendedModel(opt)
        step(model, 1)
        if searches:
            step(model, 2)
        else:
            with pytest.raises(RuntimeError, match="find_unused_parameters=True"):
                step(model, 2)
    finally:
        torch.distributed.destroy_process_group()


def test_checkpoints_keep_basicsrs_layout(tmp_path: Path) -> None:
    model = build(tmp_path, ema_decay=0.5)
    step(model)
    model.save(0, 1)
    model.save(-1, -1)
    names = sorted(p.name for p in tmp_path.glob("*/*"))
    assert names == ["1.state", "net_g_1.pth", "net_g_latest.pth"]
    content = torch.load(tmp_path / "models" / "net_g_1.pth", weights_only=True)
    assert set(content) == {"params", "params_ema"}
    assert set(content["params"]) == set(model.net_g.state_dict())
    state = torch.load(tmp_path / "training_states" / "1.state", weights_only=True)
    assert set(state) == {"epoch", "iter", "optimizers", "schedulers", "best_metric_results"}


def test_a_subclass_adds_to_the_state_and_checks_it_before_anything_is_loaded(tmp_path: Path) -> None:
    class Model(MendedModel):
        def extra_state(self) -> dict:
            return {"extra": 1}

        def check_extra_state(self, resume_state: dict) -> None:
            if resume_state["extra"] != 1:
                raise UserError("another run")

    model = Model(options(tmp_path))
    model.save(0, 1)
    state = torch.load(tmp_path / "training_states" / "1.state", weights_only=True)
    model.resume_training(copy.deepcopy(state))
    loaded = []
    model.optimizer_g.load_state_dict = loaded.append
    with pytest.raises(UserError, match="another run"):
        model.resume_training({**state, "extra": 2})
    assert loaded == []


def test_a_save_that_fails_is_an_error_and_leaves_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(tmp_path)
    model.save(0, 1)
    before = {p: p.read_bytes() for p in tmp_path.glob("*/*")}

    def full(content: object, file) -> None:
        file.write(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"net_g_1\.pth: can't be written .*No space left"):
        model.save_network(model.net_g, "net_g", 1)
    with pytest.raises(UserError, match=r"1\.state: can't be written .*No space left"):
        model.save_training_state(0, 1)
    assert {p: p.read_bytes() for p in tmp_path.glob("*/*")} == before


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"params": s},
        lambda s: {"params_ema": s},
        lambda s: {"state_dict": s},
        lambda s: s,
        lambda s: {"params": {f"module.{k}": v for k, v in s.items()}},
    ],
    ids=["params", "params_ema", "state_dict", "bare", "module."],
)
def test_every_usual_layout_loads(tmp_path: Path, wrap) -> None:
    source = BufferedNet()
    torch.save(wrap(source.state_dict()), tmp_path / "net.pth")
    model = build(tmp_path)
    model.load_network(model.net_g, str(tmp_path / "net.pth"))
    torch.testing.assert_close(model.net_g.state_dict(), source.state_dict())


def test_what_does_not_fit_or_would_execute_is_refused_by_name(tmp_path: Path) -> None:
    model = build(tmp_path)
    torch.save({"params": nn.Conv2d(1, 1, 1).state_dict()}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other.pth does not fit BufferedNet"):
        model.load_network(model.net_g, str(tmp_path / "other.pth"))
    torch.save({"params": Evil(tmp_path / "executed")}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"evil.pth is not a readable PyTorch file"):
        model.load_network(model.net_g, str(tmp_path / "evil.pth"))
    assert not (tmp_path / "executed").exists()
    torch.save({"params": [1, 2]}, tmp_path / "list.pth")
    with pytest.raises(UserError, match=r"list.pth holds no weights"):
        model.load_network(model.net_g, str(tmp_path / "list.pth"))


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_the_best_generator_is_kept_by_the_first_metric(tmp_path: Path) -> None:
    model = build(tmp_path)
    model.opt["datasets"] = {"val": {"name": "v"}}
    pairs = [{"lq": torch.rand(1, 3, 16, 16), "gt": torch.rand(1, 3, 16, 16), "lq_path": ["a.png"]}]

    class Loader(list):
        class dataset:  # noqa: N801
            opt = {"name": "v"}  # noqa: RUF012

    best = tmp_path / "models" / "net_g_best.pth"
    weights = {}
    for current_iter, noise in ((1, 5.0), (2, 0.0), (3, 9.0)):
        with torch.no_grad():
            model.net_g.up.bias.fill_(noise)
        model.nondist_validation(Loader(pairs), current_iter, None, False)
        weights[current_iter] = torch.load(best, weights_only=True)["params"]["up.bias"][0].item()
    assert weights == {1: 5.0, 2: 0.0, 3: 0.0}
    model.save_training_state(0, 3)
    resumed = build(tmp_path)
    resumed.opt["datasets"] = model.opt["datasets"]
    resumed.resume_training(torch.load(tmp_path / "training_states" / "3.state", weights_only=True))
    with torch.no_grad():
        resumed.net_g.up.bias.fill_(7.0)
    resumed.nondist_validation(Loader(pairs), 4, None, False)
    assert torch.load(best, weights_only=True)["params"]["up.bias"][0] == 0


def test_whole_numbers_among_adam_s_betas_are_taken(tmp_path: Path) -> None:
    model = build(tmp_path, optim_g={"type": "Adam", "lr": 1e-3, "betas": [0, 0.99]})
    assert model.optimizers[0].param_groups[0]["betas"] == (0.0, 0.99)


@pytest.mark.parametrize(("num_gpu", "flushed"), [(0, [True]), (1, [])])
def test_denormal_numbers_are_zero_on_cpus_alone(monkeypatch: pytest.MonkeyPatch, num_gpu: int, flushed: list) -> None:
    class Built(Exception):  # noqa: N818
        pass

    def build_model(self: SRModel, opt: dict) -> None:
        raise Built

    calls: list[bool] = []
    monkeypatch.setattr(torch, "set_flush_denormal", calls.append)
    monkeypatch.setattr(SRModel, "__init__", build_model)
    with pytest.raises(Built):
        MendedModel({"num_gpu": num_gpu})
    assert calls == flushed


def test_several_processes_on_another_device_than_cpus_are_left_to_basicsr(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MendedModel.__new__(MendedModel)
    model.opt, model.device, model.acceleration = (
        {"dist": True, "num_gpu": 1},
        torch.device("meta"),
        Acceleration.read({}),
    )
    monkeypatch.setattr(BaseModel, "model_to_device", lambda self, net: ("by BasicSR", net))
    by, net = model.model_to_device(torch.nn.Conv2d(3, 3, 1))
    assert (by, net.weight.device.type) == ("by BasicSR", "meta")
