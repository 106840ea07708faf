"""The training step: which loss reaches which network, Eq. 6, 8 and 10, the order of updates, what is refused."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from basicsr.models import build_model
from basicsr.utils.registry import ARCH_REGISTRY
from safetensors.torch import save_file
from torch import distributed
from torch.nn import functional as F

from dfpg_plugin.checks import UserError
from dfpg_plugin.losses.prior_loss import prior_loss
from dfpg_plugin.models.dfpg_model import DFPGModel
from dfpg_plugin.models.microbatch import Cosines, Part, frozen
from dfpg_plugin.models.nonfinite import NonFiniteLossError


def build(options: dict) -> DFPGModel:
    torch.manual_seed(0)
    model = build_model(copy.deepcopy(options))
    model.feed_data({"lq": torch.rand(2, 3, 32, 32), "gt": torch.rand(2, 3, 32, 32)})
    return model


def forward(model: DFPGModel) -> Part:
    (part,) = Part.of(model.lq, model.gt, 1)
    model._estimate(part, with_graph=True)
    return part


def gradients(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("term", "without_gradient"),
    [
        ("l_g_pix", ()),
        ("l_g_prior", ("decoder", "encoder.middle")),
        ("l_g_gan", ("decoder", "encoder.middle")),
    ],
)
def test_generator_terms_reach_the_generator_and_nothing_else(
    options: dict, term: str, without_gradient: tuple
) -> None:
    model = build(options)
    part = forward(model)
    with frozen(model.net_d):
        model._generator_losses(part)[0][term].backward()
    reached = gradients(model.net_g)
    every = {name for name, _ in model.net_g.named_parameters()}
    assert set(reached) == {name for name in every if not name.startswith(without_gradient or "nothing")}
    assert gradients(model.net_d) == {}
    assert gradients(model.net_prior) == {}


def test_discriminator_terms_reach_the_discriminator_and_nothing_else(options: dict) -> None:
    model = build(options)
    losses, _ = model._discriminator_losses(model.critic, forward(model))
    sum(losses.values()).backward()
    assert set(gradients(model.net_d)) == {name for name, _ in model.net_d.named_parameters()}
    assert gradients(model.net_g) == {}
    assert gradients(model.net_prior) == {}


def test_gradient_of_the_prior_loss_flows_through_the_attention_weights(options: dict) -> None:
    """With weights taken as constants the gradient would be another one."""
    model = build(options)
    target = forward(model).estimate.target
    leaves = [(3 * torch.rand_like(p) + 0.1).requires_grad_() for p in target]
    with frozen(model.net_d):
        with torch.no_grad():
            weighted_target = model._attend(target)
            constant = [a / p for a, p in zip(model._attend(leaves), leaves, strict=True)]
        flowing = torch.autograd.grad(model.cri_prior(model._attend(leaves), weighted_target), leaves)
        fixed = torch.autograd.grad(
            model.cri_prior([p * w for p, w in zip(leaves, constant, strict=True)], weighted_target), leaves
        )
    assert all((a - b).abs().max() > 1e-3 * b.abs().max() for a, b in zip(flowing, fixed, strict=True))


def test_losses_are_equations_6_8_and_10(options: dict) -> None:
    options["train"]["gan_opt"]["loss_weight"] = 0.05
    model = build(options)
    model.net_d.eval()  # no further power iterations, so that every call sees the same weights
    part = forward(model)
    estimated, target = part.estimate.estimated, part.estimate.target
    with torch.no_grad():
        for attention in model.net_d.channel_attention:
            attention.attention[3].bias.normal_(std=2)  # at first all channels weigh nearly the same
        real, fake = model.net_d(target).double(), model.net_d(estimated).double()
        losses, logits = model._discriminator_losses(model.critic, part)
        terms, _ = model._generator_losses(part)
        p, p_hat = model.net_d.attend(target), model.net_d.attend(estimated)
    assert losses["l_d_real"].item() == pytest.approx(-torch.log(torch.sigmoid(real)).mean().item(), rel=1e-5)
    assert losses["l_d_fake"].item() == pytest.approx(-torch.log(1 - torch.sigmoid(fake)).mean().item(), rel=1e-5)
    assert logits["out_d_real"].item() == pytest.approx(real.mean().item(), rel=1e-4)
    assert terms["l_g_gan"].item() == pytest.approx(-0.05 * torch.log(torch.sigmoid(fake)).mean().item(), rel=1e-5)
    assert terms["l_g_pix"].item() == pytest.approx(
        (part.estimate.restored - model.gt).double().abs().mean().item(), rel=1e-5
    )
    unit = [[x.double() / x.double().norm(dim=1, keepdim=True).clamp(min=1e-12) for x in f] for f in (p, p_hat)]
    prior = sum((a - b).square().mean() for a, b in zip(*unit, strict=True))
    assert terms["l_g_prior"].item() == pytest.approx(prior.item(), rel=1e-4)
    assert set(terms) == {"l_g_pix", "l_g_prior", "l_g_gan"}


def test_one_step_makes_one_forward_of_the_generator_and_one_of_the_prior(options: dict) -> None:
    model = build(options)
    calls = {"g": 0, "prior": 0, "d": 0}
    for name, net in (("g", model.net_g), ("prior", model.net_prior), ("d", model.net_d)):
        net.register_forward_hook(lambda *_, name=name: calls.__setitem__(name, calls[name] + 1))
    model.optimize_parameters(1)
    assert calls == {"g": 1, "prior": 1, "d": 3}  # D: real, fake, and fake once more for G


def test_the_step_of_g_sees_the_updated_discriminator_which_it_leaves_alone(options: dict) -> None:
    model = build(options)
    seen = {}
    original = model._generator_losses

    def spy(*args: object) -> dict:
        seen["before G"] = {k: v.clone() for k, v in model.net_d.named_parameters()}
        return original(*args)

    model._generator_losses = spy
    start = {k: v.clone() for k, v in model.net_d.named_parameters()}
    generator = {k: v.clone() for k, v in model.net_g.named_parameters()}
    model.optimize_parameters(1)
    assert any(not torch.equal(start[k], seen["before G"][k]) for k in start)
    assert all(torch.equal(v, seen["before G"][k]) for k, v in model.net_d.named_parameters())
    assert any(not torch.equal(generator[k], v) for k, v in model.net_g.named_parameters())
    assert all(p.requires_grad for p in model.net_d.parameters())


def test_log_names_every_term(options: dict) -> None:
    model = build(options)
    model.optimize_parameters(1)
    assert list(model.get_current_log()) == [
        *("l_d_real", "l_d_fake", "norm_d", "out_d_real", "out_d_fake", "l_g_pix", "l_g_prior", "l_g_gan", "norm_g"),
        *("cos_p1", "cos_p2", "cos_p3"),
    ]


def test_cosines_compare_channel_vectors_of_p_and_its_estimate(options: dict) -> None:
    model = build(options)
    part = forward(model)
    for i, value in enumerate(Cosines()(part.estimate.estimated, part.estimate.target).values()):
        a, b = part.estimate.estimated[i].detach().double(), part.estimate.target[i].double()
        cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-8)
        assert value.item() == pytest.approx(cosine.mean().item(), abs=1e-5)


def test_both_networks_decay_by_0_99_an_epoch_from_their_own_rates(options: dict) -> None:
    options["train"]["optim_g"]["lr"], options["train"]["optim_d"]["lr"] = 1e-4, 1e-5
    options["train"]["scheduler"] = {"type": "StepLR", "step_size": 3, "gamma": 0.99}
    model = build(options)
    for current_iter in range(1, 11):
        model.update_learning_rate(current_iter)
        epoch = (current_iter - 1) // 3
        rates = [optimizer.param_groups[0]["lr"] for optimizer in model.optimizers]
        assert rates == pytest.approx([1e-4 * 0.99**epoch, 1e-5 * 0.99**epoch])
        for optimizer in model.optimizers:
            optimizer.step()


def test_gradients_are_clipped_to_the_norm_asked_for(options: dict) -> None:
    options["train"]["grad_clip_norm"] = 1e-3
    model = build(options)
    model.optimize_parameters(1)
    for net in (model.net_g, model.net_d):
        norm = torch.stack([p.grad.norm() for p in net.parameters() if p.grad is not None]).norm()
        assert norm.item() <= 1e-3 * 1.001


def test_one_step_of_g_follows_the_gradient_of_the_sum_of_equation_10(options: dict) -> None:
    model, reference = build(options), build(options)
    for m in (model, reference):
        m.critic.optimizer.step = lambda: None
        m.optimizer_g.step = lambda: None
        m.net_d.eval()  # no further power iterations, so that every call sees the same weights
    model.optimize_parameters(1)
    part = forward(reference)
    with frozen(reference.net_d):
        terms, _ = reference._generator_losses(part)
        for term in terms.values():
            term.backward(retain_graph=True)
    expected = gradients(reference.net_g)
    for name, gradient in gradients(model.net_g).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-7)


def test_a_gradient_that_is_not_finite_stops_before_the_update(options: dict) -> None:
    model = build(options)
    generator = {k: v.clone() for k, v in model.net_g.named_parameters()}
    next(model.net_g.parameters()).register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(
        NonFiniteLossError, match=r"the gradient of l_g_pix \+ l_g_prior \+ l_g_gan is nan at iteration 3"
    ):
        model.optimize_parameters(3)
    assert all(torch.equal(v, generator[k]) for k, v in model.net_g.named_parameters())


def test_each_step_moves_the_averaged_weights_by_the_decay_of_the_options(options: dict) -> None:
    options["train"]["ema_decay"] = 0.5
    options["train"]["optim_g"]["lr"] = 0.01
    model = build(options)
    average = {name: p.detach().double() for name, p in model.net_g.named_parameters()}
    first = dict(average)
    for current_iter in (1, 2):
        model.optimize_parameters(current_iter)
        weights = dict(model.net_g.named_parameters())
        average = {name: 0.5 * value + 0.5 * weights[name].detach().double() for name, value in average.items()}
    moved = dict(model.net_g_ema.named_parameters())
    assert moved.keys() == average.keys()
    for name, value in average.items():
        torch.testing.assert_close(moved[name], value.float())
    assert any((average[name] - value).abs().max() > 1e-3 for name, value in first.items())


def test_estimates_of_other_channels_than_the_priors_are_refused(options: dict) -> None:
    options["network_g"]["prior_channels"] = [64, 128, 128]
    with pytest.raises(UserError, match="prior_channels"):
        build(options).optimize_parameters(1)


@pytest.mark.parametrize("term", ["l_d_fake", "l_g_prior"])
def test_a_term_that_is_not_finite_stops_before_the_networks_are_updated(
    options: dict, monkeypatch: pytest.MonkeyPatch, term: str
) -> None:
    model = build(options)
    broken = "_discriminator_losses" if term.startswith("l_d") else "_generator_losses"
    original = getattr(model, broken)

    def poisoned(*args: object) -> object:
        losses, others = original(*args)
        losses[term] = losses[term] * float("nan")
        return losses, others

    monkeypatch.setattr(model, broken, poisoned)
    generator = {k: v.clone() for k, v in model.net_g.named_parameters()}
    with pytest.raises(NonFiniteLossError, match=f"{term} is nan at iteration 12"):
        model.optimize_parameters(12)
    assert all(torch.equal(v, generator[k]) for k, v in model.net_g.named_parameters())


EDSR = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "upscale": 1}
ABLATIONS = {
    "B1": {"prior_stream": False, "losses": ["pixel_opt"], "terms": ["l_g_pix"]},
    "B2": {"prior_stream": False, "losses": ["pixel_opt", "feature_opt"], "terms": ["l_g_pix", "l_g_feature"]},
    "B3": {"feature_transform": False, "losses": ["pixel_opt", "prior_opt"], "terms": ["l_g_pix", "l_g_prior"]},
    "B4": {"losses": ["pixel_opt", "prior_opt"], "terms": ["l_g_pix", "l_g_prior"]},
    "B5": {"attention": False, "losses": ["pixel_opt", "prior_opt", "gan_opt"]},
    "B6": {"attention": True, "losses": ["pixel_opt", "prior_opt", "gan_opt"]},
}


def ablation(options: dict, name: str, **train_options: object) -> dict:
    row = ABLATIONS[name]
    train = options["train"]
    train.update(train_options)
    train["feature_opt"] = {"type": "MSELoss", "loss_weight": 0.1}
    for key in ("pixel_opt", "prior_opt", "gan_opt", "feature_opt"):
        if key not in row["losses"]:
            del train[key]
    options["network_g"].update({k: v for k, v in row.items() if k in ("prior_stream", "feature_transform")})
    if "gan_opt" in row["losses"]:
        options["network_d"]["channel_attention"] = row["attention"]
    else:
        del options["network_d"]
    return options


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    """A group of this process alone."""
    distributed.init_process_group("gloo", f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_model_of_table_4_trains(options: dict, name: str) -> None:
    model = build(ablation(options, name))
    model.optimize_parameters(1)
    terms = [k for k in model.get_current_log() if k.startswith("l_g_")]
    assert terms == ABLATIONS[name].get("terms", ["l_g_pix", "l_g_prior", "l_g_gan"])
    assert [name for name, p in model.net_g.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", ABLATIONS)
def test_every_model_of_table_4_trains_in_several_processes_without_a_search_for_unused_parameters(
    options: dict, one_process: None, name: str, accumulate: int
) -> None:
    """DistributedDataParallel raises in the second step where a parameter got no gradient in the first."""
    options.update(dist=True, world_size=1)
    model = build(ablation(options, name, accumulate=accumulate))
    for current_iter in (1, 2):
        model.optimize_parameters(current_iter)
    assert isinstance(model.net_g, torch.nn.parallel.DistributedDataParallel)
    assert not model.net_g.find_unused_parameters


def test_feature_loss_of_b2_compares_features_of_restored_and_sharp(options: dict) -> None:
    options["train"]["feature_opt"] = {"type": "MSELoss", "loss_weight": 0.5}
    model = build(options)
    part = forward(model)
    expected = sum(
        0.5 * F.mse_loss(a, b)
        for a, b in zip(model.net_prior(part.estimate.restored), part.estimate.target, strict=True)
    )
    torch.testing.assert_close(model._generator_losses(part)[0]["l_g_feature"], expected)


def test_the_prior_loss_as_feature_loss_is_equation_9_of_the_restored_face(options: dict) -> None:
    options["train"]["feature_opt"] = {"type": "PriorLoss", "loss_weight": 0.5}
    model = build(options)
    part = forward(model)
    expected = 0.5 * prior_loss(model.net_prior(part.estimate.restored), part.estimate.target)
    torch.testing.assert_close(model._generator_losses(part)[0]["l_g_feature"], expected)


def test_a_loss_of_basicsr_in_the_place_of_the_prior_loss_is_summed_over_the_layers(options: dict) -> None:
    options["train"]["prior_opt"] = {"type": "MSELoss", "loss_weight": 2.0}
    del options["network_d"], options["train"]["gan_opt"], options["train"]["optim_d"]
    model = build(options)
    part = forward(model)
    pairs = zip(part.estimate.estimated, part.estimate.target, strict=True)
    expected = sum(2 * F.mse_loss(p_hat, p) for p_hat, p in pairs)
    torch.testing.assert_close(model._generator_losses(part)[0]["l_g_prior"], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: o.pop("network_prior"), "network_prior: missing"),
        (lambda o: o.pop("network_d"), "network_d and train.gan_opt"),
        (lambda o: o["train"].pop("gan_opt"), "network_d and train.gan_opt"),
        (lambda o: o["train"].pop("optim_d"), "train.optim_d: missing"),
        (lambda o: o.update(network_g=EDSR), "EDSR estimates no prior"),
        (lambda o: o["train"].update(grad_clip_norm=-1), "grad_clip_norm"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(options: dict, change, message: str) -> None:
    change(options)
    with pytest.raises(UserError, match=message):
        build(options)


def test_the_discriminator_is_saved_and_loaded(options: dict) -> None:
    model = build(options)
    model.optimize_parameters(1)
    model.save(0, 1)
    path = Path(options["path"]["models"])
    assert sorted(p.name for p in path.iterdir()) == ["net_d_1.pth", "net_g_1.pth"]
    options["path"]["pretrain_network_d"] = str(path / "net_d_1.pth")
    options["path"]["pretrain_network_g"] = str(path / "net_g_1.pth")
    torch.testing.assert_close(build(options).net_d.state_dict(), model.net_d.state_dict())


def saved_state(options: dict) -> dict:
    build(options).save(0, 1)
    return torch.load(Path(options["path"]["training_states"]) / "1.state", weights_only=True)


def test_the_priors_record_travels_in_the_state(options: dict, tmp_path: Path) -> None:
    state = saved_state(options)
    assert state["prior"] == build(options).net_prior.record
    assert state["prior"]["file"] == "random"
    build(options).resume_training(copy.deepcopy(state))
    tensors = {k: v.contiguous() for k, v in build(options).net_prior.features.state_dict().items()}
    save_file(tensors, tmp_path / "same.safetensors", {"input": "pm1"})  # the same weights in another file
    options["network_prior"]["weights"] = str(tmp_path / "same.safetensors")
    build(options).resume_training(copy.deepcopy(state))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": "stand-in"}, r"another weights_sha256\. .*random, rgb, pm1.*, now weights .*standin_prior_lfw"),
        ({"input": "caffe255"}, r"another input, feature_scale\. .*pm1.* now .*caffe255"),
        ({"layers": ["relu1_2", "relu2_2", "conv3_3"]}, r"another layers\. .*'relu3_3'.* now .*'conv3_3'"),
        ({"feature_scale": [1.0, 1.0, 0.5]}, r"another feature_scale\. .*1\.0\].* now .*0\.5\]"),
        ({"type": "PlainPrior"}, r"another weights_sha256, .* now no known prior"),
    ],
)
def test_a_run_never_goes_on_with_another_prior(
    options: dict, monkeypatch: pytest.MonkeyPatch, change: dict, message: str
) -> None:
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, "PlainPrior", PlainPrior)
    state = saved_state(options)
    options["network_prior"].update(change)
    with pytest.raises(UserError, match=f"^network_prior: {message}") as caught:
        build(options).resume_training(state)
    assert str(caught.value).endswith("Use the same, or start a new run with path:pretrain_network_g.")
    assert "\n" not in str(caught.value)


class PlainPrior(torch.nn.Module):
    """Another extractor, which keeps no record."""

    def __init__(self, weights: str) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [F.avg_pool2d(x.mean(1, keepdim=True).expand(-1, 64 * s, -1, -1), s) for s in (1, 2, 4)]


def test_states_without_a_record_go_on_without_complaint(options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    state = saved_state(options)
    del state["prior"]
    build(options).resume_training(state)
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, "PlainPrior", PlainPrior)
    options["network_prior"]["type"] = "PlainPrior"
    state = saved_state(options)
    assert "prior" not in state
    build(options).resume_training(state)
