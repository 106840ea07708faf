"""Where P^ comes from, for networks that estimate none; networks sized to the prior; what is refused."""

import copy
from collections.abc import Iterator

import pytest
import torch
from basicsr.archs import build_network
from basicsr.models import build_model
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from dfpg_plugin.checks import UserError
from dfpg_plugin.losses.prior_loss import PriorPerceptualLoss
from dfpg_plugin.models.dfpg_model import DFPGModel
from dfpg_plugin.models.microbatch import Part, frozen
from dfpg_plugin.models.priors import channels_and_strides, sized_to_prior
from dfpg_plugin.speed.acceleration import channels_last

EDSR = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "upscale": 1}
COARSE = ["relu2_2", "relu3_3", "relu4_3"]  # of 128, 256 and 512 channels, strides 2, 4 and 8


@pytest.fixture
def restored(options: dict) -> dict:
    """The complete method around a network that returns an image only."""
    options["network_g"] = dict(EDSR)
    options["train"]["estimated_prior"] = "restored"
    return options


def build(options: dict, size: int = 32) -> DFPGModel:
    torch.manual_seed(0)
    model = build_model(copy.deepcopy(options))
    model.feed_data({"lq": torch.rand(2, 3, size, size), "gt": torch.rand(2, 3, size, size)})
    return model


def reached(net: nn.Module) -> set[str]:
    return {name for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}


@pytest.mark.parametrize("term", ["l_g_pix", "l_g_prior", "l_g_gan"])
def test_every_term_passes_the_extractor_and_reaches_the_generator_only(restored: dict, term: str) -> None:
    model = build(restored)
    (part,) = Part.of(model.lq, model.gt, 1)
    model._estimate(part, with_graph=True)
    with frozen(model.net_d):
        model._generator_losses(part)[0][term].backward()
    assert reached(model.net_g) == {name for name, _ in model.net_g.named_parameters()}
    assert reached(model.net_d) == reached(model.net_prior) == set()


def test_discriminator_terms_reach_the_discriminator_only(restored: dict) -> None:
    model = build(restored)
    (part,) = Part.of(model.lq, model.gt, 1)
    model._estimate(part, with_graph=True)
    torch.stack(list(model._discriminator_losses(model.critic, part)[0].values())).sum().backward()
    assert reached(model.net_d) == {name for name, _ in model.net_d.named_parameters()}
    assert reached(model.net_g) == reached(model.net_prior) == set()


def test_the_prior_loss_is_equation_9_on_the_features_of_the_restored_face(restored: dict) -> None:
    del restored["train"]["gan_opt"], restored["network_d"]
    model = build(restored)
    (part,) = Part.of(model.lq, model.gt, 1)
    model._estimate(part, with_graph=True)
    (loss, log) = model._generator_losses(part)
    unit = []
    for image in (model.net_g(model.lq), model.gt):
        features = [p.detach().double() for p in model.net_prior(image)]
        unit.append([p / p.norm(dim=1, keepdim=True).clamp(min=1e-6) for p in features])
    expected = sum((a - b).square().mean() for a, b in zip(*unit, strict=True))
    assert loss["l_g_prior"].item() == pytest.approx(expected.item(), rel=1e-5)
    expected_cosine = (unit[0][2] * unit[1][2]).sum(dim=1).mean().item()
    assert log["cos_p3"].item() == pytest.approx(expected_cosine, rel=1e-5)


def test_the_extractor_sees_each_restored_face_once(restored: dict) -> None:
    restored["train"]["feature_opt"] = {"type": "MSELoss", "loss_weight": 0.1}
    model = build(restored)
    calls = []
    model.net_prior.register_forward_hook(lambda _, inputs, __: calls.append(inputs[0].requires_grad))
    model.optimize_parameters(1)
    assert calls == [False, True]  # the sharp face's, then the restored one's
    assert {"l_g_prior", "l_g_gan", "l_g_feature", "cos_p1"} <= set(model.get_current_log())


def test_a_batch_in_parts_has_the_gradients_of_the_whole(restored: dict) -> None:
    del restored["train"]["gan_opt"], restored["network_d"], restored["train"]["optim_d"]
    whole, parts = build(restored), build({**restored, "train": {**restored["train"], "accumulate": 2}})
    for model in (whole, parts):
        model.optimize_parameters(1)
    for a, b in zip(whole.net_g.parameters(), parts.net_g.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-7)


def test_a_network_without_priors_is_refused_as_their_source(restored: dict) -> None:
    del restored["train"]["estimated_prior"]
    with pytest.raises(UserError, match=r"network_g: EDSR estimates no prior.*train:estimated_prior: restored"):
        build(restored)


def test_a_source_that_there_is_not(restored: dict) -> None:
    restored["train"]["estimated_prior"] = "restore"
    with pytest.raises(UserError, match="train: estimated_prior: expected generator or restored, got 'restore'"):
        build(restored)


def test_dfpgnet_without_its_prior_stream_says_what_to_choose(options: dict) -> None:
    options["network_g"]["prior_stream"] = False
    with pytest.raises(UserError, match=r"prior_stream.*train:estimated_prior: restored"):
        build(options).optimize_parameters(1)
    options["train"]["estimated_prior"] = "restored"
    model = build(options)
    model.optimize_parameters(1)
    assert "l_g_prior" in model.get_current_log()


class Normalised(nn.Module):
    """Stand for an extractor of others, which nothing keeps in eval mode."""

    def __init__(self, kind: str = "list") -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.kind = kind

    def forward(self, x: Tensor) -> object:
        feature = self.norm(x)
        return {"list": [feature], "tensor": feature, "dict": {"relu": feature}}[self.kind]


@pytest.fixture
def _normalised() -> Iterator[None]:
    ARCH_REGISTRY._obj_map["Normalised"] = Normalised
    yield
    del ARCH_REGISTRY._obj_map["Normalised"]


def only_the_prior_loss(options: dict) -> dict:
    del options["train"]["gan_opt"], options["train"]["optim_d"], options["network_d"]
    return options


@pytest.mark.usefixtures("_normalised")
def test_an_extractor_of_others_stays_as_it_is(restored: dict) -> None:
    only_the_prior_loss(restored)["network_prior"] = {"type": "Normalised"}
    model = build(restored)
    model.optimize_parameters(1)
    assert not model.net_prior.norm.training
    assert model.net_prior.norm.num_batches_tracked == 0


@pytest.mark.usefixtures("_normalised")
@pytest.mark.parametrize("kind", ["tensor", "dict"])
def test_an_extractor_that_returns_no_list_is_refused(restored: dict, kind: str) -> None:
    prior = {"type": "Normalised", "kind": kind}
    only_the_prior_loss(restored)["network_prior"] = prior
    with pytest.raises(UserError, match="network_prior: Normalised returns no list of feature maps"):
        build(restored).optimize_parameters(1)
    with pytest.raises(UserError, match="network_prior: Normalised returns no list of feature maps"):
        PriorPerceptualLoss(network_prior=prior)(*torch.rand(2, 1, 3, 8, 8))


def test_a_generator_whose_estimates_nobody_compares_keeps_its_size(options: dict) -> None:
    """A perceptual loss on one layer (model B2), which DFPGNet could not estimate."""
    only_the_prior_loss(options)
    del options["train"]["prior_opt"]
    options["train"]["feature_opt"] = {"type": "MSELoss"}
    options["network_prior"]["layers"] = ["relu2_2"]
    assert sized_to_prior(options) == options
    build(options).optimize_parameters(1)
    options["train"].update(prior_opt={"type": "PriorLoss"}, estimated_prior="restored")
    assert sized_to_prior(options) == options
    model = build(options)
    model.optimize_parameters(1)
    assert "cos_p1" in model.get_current_log()


def test_sizing_leaves_the_random_numbers_alone(options: dict) -> None:
    before = torch.get_rng_state()
    assert sized_to_prior(options) != options
    assert torch.equal(torch.get_rng_state(), before)


def test_sizing_leaves_unknown_networks_to_those_who_build_them(options: dict) -> None:
    options["network_g"] = {"type": "Unknown"}
    assert sized_to_prior(options)["network_g"] == {"type": "Unknown"}


@pytest.mark.usefixtures("_normalised")
def test_the_prior_loss_as_a_perceptual_one_may_be_computed_in_parts(restored: dict) -> None:
    only_the_prior_loss(restored)["network_prior"] = {"type": "Normalised"}
    loss = {"type": "PriorPerceptualLoss", "reduction": "mean_hw", "network_prior": {"type": "Normalised"}}
    restored["train"].update(perceptual_opt=loss, accumulate=2)
    build(restored).optimize_parameters(1)


class TwoImages(nn.Module):
    """Stand for a network that returns more than the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        return self.conv(x), [x]


def test_what_is_no_image_of_the_right_size_is_refused(restored: dict) -> None:
    ARCH_REGISTRY._obj_map["TwoImages"] = TwoImages
    try:
        restored["network_g"] = {"type": "TwoImages"}
        with pytest.raises(UserError, match="TwoImages returns 2 outputs, not an image"):
            build(restored).optimize_parameters(1)
    finally:
        del ARCH_REGISTRY._obj_map["TwoImages"]
    restored["network_g"] = {**EDSR, "upscale": 2}
    with pytest.raises(UserError, match=r"EDSR returns images of \(3, 64, 64\), expected \(3, 32, 32\)"):
        build(restored).optimize_parameters(1)


def test_networks_are_sized_to_the_prior(options: dict) -> None:
    options["network_prior"]["layers"] = COARSE
    before = copy.deepcopy(options)
    sized = sized_to_prior(options)
    assert options == before
    for key in ("network_g", "network_d"):
        assert sized[key]["prior_channels"] == [128, 256, 512], key
        assert sized[key]["prior_strides"] == [2, 4, 8], key
    model = build(options, size=48)
    model.optimize_parameters(1)
    (part,) = Part.of(model.lq, model.gt, 1)
    model._estimate(part, with_graph=True)
    assert [p.shape[1:] for p in part.estimate.estimated] == [(128, 24, 24), (256, 12, 12), (512, 6, 6)]


def test_what_the_options_say_of_the_prior_stays(options: dict) -> None:
    options["network_prior"]["layers"] = COARSE
    options["network_g"]["prior_channels"] = [1, 2, 3]
    sized = sized_to_prior(options)
    assert sized["network_g"]["prior_channels"] == [1, 2, 3]
    assert sized["network_g"]["prior_strides"] == [2, 4, 8]
    with pytest.raises(UserError, match="prior_channels and prior_strides"):
        build(options, size=48).optimize_parameters(1)


def test_no_prior_leaves_the_networks_as_they_are(options: dict) -> None:
    del options["network_prior"]
    assert sized_to_prior(options) == options


def test_a_prior_whose_weights_are_elsewhere_is_measured_none_the_less(options: dict) -> None:
    options["network_prior"] = {"type": "VGGFaceFeatureExtractor", "weights": "nowhere.pth", "layers": COARSE}
    assert sized_to_prior(options)["network_g"]["prior_strides"] == [2, 4, 8]


def test_a_network_that_is_no_extractor() -> None:
    with pytest.raises(UserError, match="network_prior: EDSR returns no list of feature maps"):
        channels_and_strides(build_network(dict(EDSR)))


def test_channels_last_leaves_what_is_no_image_alone() -> None:
    """StyleGAN2's modulated convolutions have weights of five dimensions, for which torch raises."""
    net = nn.Conv2d(3, 4, 3)
    net.modulated = nn.Parameter(torch.rand(1, 4, 3, 3, 3))
    weight, modulated = net.weight.detach().clone(), net.modulated.detach().clone()
    assert channels_last(net) is net
    assert net.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(net.weight, weight) and torch.equal(net.modulated, modulated)


class Viewing(nn.Module):
    """Stand for a network that takes its features for contiguous."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).view(len(x), -1).view(x.shape)


def test_a_network_that_relies_on_the_order_in_memory(restored: dict) -> None:
    ARCH_REGISTRY._obj_map["Viewing"] = Viewing
    try:
        restored["network_g"] = {"type": "Viewing"}
        with pytest.raises(UserError, match=r"Viewing relies on the order of its tensors .*contiguous: true"):
            build(restored).optimize_parameters(1)
        restored["network_g"] = {"type": "AdaptedNet", "contiguous": True, "network": {"type": "Viewing"}}
        build(restored).optimize_parameters(1)
    finally:
        del ARCH_REGISTRY._obj_map["Viewing"]
