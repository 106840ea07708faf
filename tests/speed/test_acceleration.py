"""Options that change how a step is computed: in parts, in lower precision, compiled, without waiting."""

import copy
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from basicsr.models import build_model
from basicsr.utils.registry import ARCH_REGISTRY
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from dfpg_plugin.checks import UserError
from dfpg_plugin.models.dfpg_model import DFPGModel
from dfpg_plugin.speed import acceleration
from dfpg_plugin.speed.acceleration import Acceleration


def build(options: dict, **train: object) -> DFPGModel:
    torch.manual_seed(0)
    options = copy.deepcopy(options)
    options["train"].update(train)
    return build_model(options)


def train(model: DFPGModel, steps: int, batch: int = 4) -> list[dict]:
    """Train on the same pairs, and return the logs."""
    generator = torch.Generator().manual_seed(0)
    logs = []
    for i in range(steps):
        gt = torch.rand(batch, 3, 32, 32, generator=generator)
        lq = F.avg_pool2d(F.pad(gt, (2, 2, 2, 2), mode="reflect"), 5, 1)
        model.feed_data({"lq": lq, "gt": gt})
        model.optimize_parameters(i + 1)
        logs.append(model.get_current_log())
    return logs


@pytest.mark.parametrize(("parts", "batch"), [(2, 4), (4, 4), (2, 5), (3, 5)])  # of five, one part is smaller
def test_a_batch_in_parts_makes_the_update_of_the_whole_batch(options: dict, parts: int, batch: int) -> None:
    """Adam's first steps have the size of the rate whatever the gradient's, so plain descent is compared."""
    descent = {key: {"type": "SGD", "lr": 0.1} for key in ("optim_g", "optim_d")}
    models = [build(options, accumulate=count, **descent) for count in (1, parts)]
    for model in models:
        model.net_d.eval()  # no power iterations, of which parts make more
    whole, in_parts = (train(model, 3, batch) for model in models)
    for a, b in zip(whole, in_parts, strict=True):
        assert b == pytest.approx(a, rel=1e-4, abs=1e-6)
    for a, b in zip(*(model.net_g.state_dict().values() for model in models), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    for a, b in zip(*(model.net_d.state_dict().values() for model in models), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_parts_are_never_in_memory_together(options: dict) -> None:
    model = build(options, accumulate=4)
    sizes = []
    model.net_g.register_forward_pre_hook(lambda _, args: sizes.append((len(args[0]), torch.is_grad_enabled())))
    train(model, 1)
    assert sizes == [(1, False)] * 4 + [(1, True)] * 4


class Reading(TorchDispatchMode):
    """Refuses what reads a tensor's numbers, for which the host would wait on a GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        del types
        assert func is not torch.ops.aten._local_scalar_dense.default, "a number was read"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("train_options", [{}, {"grad_clip_norm": 1e-3}, {"accumulate": 2}, {"ema_decay": 0.9}])
def test_nothing_waits_for_a_gpu_inside_an_iteration(options: dict, monkeypatch, train_options: dict) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a number was read")

    model = build(options, **train_options)
    model.check.waits = False
    train(model, 1)
    model.feed_data({"lq": torch.rand(2, 3, 32, 32), "gt": torch.rand(2, 3, 32, 32)})
    for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    with Reading():
        model.optimize_parameters(2)
    with pytest.raises(AssertionError, match="a number was read"):
        model.get_current_log()
    with pytest.raises(AssertionError, match="a number was read"), Reading():
        torch.ops.aten._local_scalar_dense(torch.ones(()))


def test_without_waiting_the_training_is_the_same(options: dict) -> None:
    waiting, not_waiting = build(options), build(options)
    not_waiting.check.waits = False
    assert train(waiting, 3) == train(not_waiting, 3)


def test_without_waiting_a_bad_batch_changes_no_weight(options: dict) -> None:
    model = build(options)
    model.check.waits = False
    train(model, 1)
    before = {k: v.clone() for net in (model.net_g, model.net_d) for k, v in net.named_parameters()}
    gt = torch.rand(2, 3, 32, 32)
    model.feed_data({"lq": gt, "gt": gt * torch.nan})
    model.optimize_parameters(2)
    assert all(torch.equal(v, before[k]) for net in (model.net_g, model.net_d) for k, v in net.named_parameters())
    with pytest.raises(FloatingPointError, match="l_d_real is nan at iteration 2"):
        model.check.settle()


def test_bfloat16_follows_float32_and_keeps_losses_and_normalisation_in_float32(
    options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, lower = build(options), build(options, amp="bfloat16")
    wanted = train(plain, 20)
    kinds: dict[str, set] = {"convolutions": set(), "losses": set(), "normalised": set(), "spectral": set()}
    for loss in (lower.cri_pix, lower.critic.loss, lower.cri_prior):
        loss.register_forward_hook(lambda *args: kinds["losses"].add((args[2].dtype, torch.is_autocast_enabled("cpu"))))
    lower.net_g.decoder.tail.register_forward_hook(lambda *args: kinds["losses"].add((args[2].dtype, False)))
    lower.net_g.encoder.head.register_forward_hook(lambda *args: kinds["convolutions"].add(args[2].dtype))
    for layer in lower.net_d.modules():
        if hasattr(layer, "parametrizations"):
            layer.parametrizations.weight.register_forward_hook(
                lambda *args: kinds["spectral"].add((args[2].dtype, torch.is_autocast_enabled("cpu")))
            )
    normalise = F.normalize

    def watched(x: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        kinds["normalised"].add(x.dtype)
        return normalise(x, *args, **kwargs)

    monkeypatch.setattr(F, "normalize", watched)
    got = train(lower, 20)
    assert kinds == {
        "convolutions": {torch.bfloat16},
        "losses": {(torch.float32, False)},
        "normalised": {torch.float32},
        "spectral": {(torch.float32, False)},
    }
    for a, b in zip(wanted, got, strict=True):
        for name in ("l_g_pix", "l_g_prior", "l_g_gan", "l_d_real", "l_d_fake"):
            assert b[name] == pytest.approx(a[name], rel=0.02), name
    assert {p.dtype for p in lower.net_g.parameters()} == {torch.float32}


def test_float16_scales_its_losses_and_leaves_out_what_overflows(options: dict) -> None:
    model = build(options, amp="float16")
    model.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**100)  # overflows at once
    before = [p.clone() for p in model.net_g.parameters()]
    train(model, 1, batch=1)
    assert all(map(torch.equal, before, model.net_g.parameters()))
    assert model.scaler.get_scale() == 2.0**99
    model.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    train(model, 1, batch=1)
    assert not all(map(torch.equal, before, model.net_g.parameters()))


def test_float16_goes_on_with_its_scale(options: dict, tmp_path: Path) -> None:
    model, resumed = build(options, amp="float16"), build(options, amp="float16")
    model.scaler = torch.amp.GradScaler("cpu", init_scale=123.0)
    model.save(0, 1)
    resumed.resume_training(torch.load(tmp_path / "training_states" / "1.state", weights_only=True))
    assert resumed.scaler.get_scale() == 123.0


def compiled_modules(net: torch.nn.Module) -> list[str]:
    return [name for name, module in net.named_modules() if module._compiled_call_impl is not None]


def test_all_networks_are_compiled_and_keep_their_names(options: dict) -> None:
    plain, compiled = build(options), build(options, compile=True)
    for name in ("net_g", "net_d", "net_prior"):
        assert compiled_modules(getattr(plain, name)) == []
        assert list(getattr(plain, name).state_dict()) == list(getattr(compiled, name).state_dict())
    assert compiled_modules(compiled.net_d) == ["", *(f"channel_attention.{i}" for i in range(3))]  # for `attend` alone
    assert compiled_modules(compiled.net_prior) == [""]
    assert compiled_modules(compiled.cri_prior) == compiled_modules(compiled.cosines) == [""]
    # every convolution of the generator but the last, and the projections of networks narrower than the prior
    parts = compiled_modules(compiled.net_g)
    left = [
        name
        for name, module in compiled.net_g.named_modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d)
        and not any(f"{name}.".startswith(f"{part}.") for part in parts)
    ]
    assert left == [f"prior.{i}.project" for i in range(3)] + ["decoder.tail"]


@pytest.mark.parametrize(("device", "wanted"), [("cpu", False), ("cuda", True)])
def test_by_default_networks_that_say_which_parts_are_compiled_on_a_gpu(
    device: str, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceleration, "can_compile", lambda device: device.type == "cuda")
    for net, expected in ((ARCH_REGISTRY.get("CAFeatureDiscriminator")(), wanted), (torch.nn.Linear(1, 1), False)):
        assert bool(compiled_modules(Acceleration().compiled(net, torch.device(device)))) is expected
    net = Acceleration(compile=False).compiled(ARCH_REGISTRY.get("CAFeatureDiscriminator")(), torch.device(device))
    assert compiled_modules(net) == []


@pytest.mark.parametrize(
    ("found", "compilers", "capability", "missing"),
    [
        (True, ("gcc",), (9, 0), None),
        (False, ("gcc",), (9, 0), "the package triton"),
        (True, (), (9, 0), "a C compiler"),
        (True, ("gcc",), (6, 1), "a GPU of compute capability 7.0"),
    ],
)
def test_the_log_says_what_compiling_lacks(
    found: bool, compilers: tuple, capability: tuple, missing: str | None, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(acceleration, "find_spec", lambda name: found or None)
    monkeypatch.setattr(acceleration, "which", lambda name: name in compilers)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(acceleration, "get_root_logger", lambda: logging.getLogger("said"))
    caplog.set_level(logging.INFO, "said")
    assert acceleration.can_compile.__wrapped__(torch.device("cuda")) is (missing is None)
    assert [missing in record.message for record in caplog.records] == [True] * (missing is not None)


def test_validation_is_never_compiled(options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(options, compile=True)
    model.feed_data({"lq": torch.rand(1, 3, 24, 24)})
    torch._dynamo.reset()
    model.test()
    assert not torch._dynamo.utils.counters["stats"].get("unique_graphs")


@pytest.mark.slow
def test_our_compiled_networks_train_alike(options: dict) -> None:
    """One compilation serves all parts of a size.

    Three each of Resblocks, SSFT, SFT, and convolutions to and from them; two for those back; two of D, three of its
    attention with gradients and three without; one each of the prior, its loss and the cosines.
    """
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    plain, compiled = build(options), build(options, compile=True)
    for a, b in zip(train(plain, 3), train(compiled, 3), strict=True):
        assert b == pytest.approx(a, rel=1e-3, abs=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 25
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.slow
def test_a_compiled_network_trains_alike(options: dict) -> None:
    options["network_g"] = {
        "type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "upscale": 1,
    }  # fmt: skip
    for key in ("network_d", "network_prior"):
        del options[key]
    for key in ("prior_opt", "gan_opt"):
        del options["train"][key]
    plain, compiled = build(options), build(options, compile=True)
    for a, b in zip(train(plain, 3), train(compiled, 3), strict=True):
        assert b == pytest.approx(a, rel=1e-3, abs=1e-4)


@pytest.fixture
def switches() -> Iterator[tuple]:
    """Both switches of torch, put back afterwards."""
    both = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in both]
    yield both
    for switch, value in zip(both, before, strict=True):
        switch.allow_tf32 = value


@pytest.mark.parametrize("given", [True, False])
def test_tf32_is_set_where_it_is_asked_for(options: dict, switches: tuple, given: bool) -> None:
    for switch in switches:
        switch.allow_tf32 = not given
    build(options)
    assert [switch.allow_tf32 for switch in switches] == [not given] * 2
    build(options, tf32=given)
    assert [switch.allow_tf32 for switch in switches] == [given] * 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"amp": "half"}, "train: amp: expected bfloat16 or float16, got 'half'"),
        ({"accumulate": 0}, "train: accumulate: expected a whole number from 1, got 0"),
        ({"accumulate": "2"}, "train: accumulate: expected a whole number from 1, got '2'"),
        ({"compile": 1}, "train: compile: expected true or false, got 1"),
    ],
)
def test_wrong_values_are_refused(given: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Acceleration.read(given)


@pytest.mark.parametrize(
    ("optimizer", "fused"),
    [
        ({"type": "Adam"}, True),
        ({"type": "Adam", "fused": False}, False),
        ({"type": "RMSprop"}, None),
        ({"type": "SGD"}, True),
        ({"type": "SGD", "momentum": 0.9}, None),
    ],
)
def test_optimizers_are_fused_where_torch_has_them_so(options: dict, optimizer: dict, fused: bool | None) -> None:
    model = build(options, optim_g={**optimizer, "lr": 1e-3})
    assert model.optimizer_g.defaults.get("fused") is fused


@pytest.mark.parametrize("saved", [{"fused": False}, {}])
def test_a_state_of_a_plain_optimizer_goes_on_with_a_fused_one(options: dict, tmp_path: Path, saved: dict) -> None:
    adam = {"type": "Adam", "lr": 1e-3}
    plain, resumed = (build(options, optim_g={**adam, **how}) for how in ({"fused": False}, {}))
    train(plain, 1)
    plain.save(0, 1)
    state = torch.load(tmp_path / "training_states" / "1.state", weights_only=True)
    for optimizer in state["optimizers"]:
        for group in optimizer["param_groups"]:
            group.pop("fused")
            group.update(saved)
    resumed.resume_training(state)
    resumed.check.waits = False
    assert [group["fused"] for group in resumed.optimizer_g.param_groups] == [True]
    train(resumed, 2)


def test_float16_skips_a_bad_batch_and_goes_on(options: dict) -> None:
    model = build(options, amp="float16")
    before = [p.clone() for p in model.net_g.parameters()]
    gt = torch.rand(1, 3, 32, 32)
    for current_iter in (1, 2):
        model.feed_data({"lq": gt, "gt": gt * torch.nan})
        with pytest.raises(FloatingPointError, match=f"l_d_real is nan at iteration {current_iter}"):
            model.optimize_parameters(current_iter)
    assert all(map(torch.equal, before, model.net_g.parameters()))


def test_losses_that_are_no_means_can_not_be_computed_in_parts(options: dict) -> None:
    loss = {"type": "L1Loss", "reduction": "sum"}
    build(options, pixel_opt=loss)
    with pytest.raises(UserError, match="train:accumulate: pixel_opt is no mean over the batch"):
        build(options, pixel_opt=loss, accumulate=2)


def test_compiled_networks_need_a_process_for_each_gpu(options: dict) -> None:
    with pytest.raises(UserError, match="train:compile: needs one process for each GPU"):
        build({**options, "num_gpu": 2}, compile=True)
