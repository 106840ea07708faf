"""Networks of others as restorers: adapted, guided by a prior, taken from spandrel; and priors of other sizes."""

import builtins
import copy
import sys

import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from dfpg_plugin.archs.ca_discriminator_arch import CAFeatureDiscriminator
from dfpg_plugin.archs.dfpgnet_arch import DFPGNet
from dfpg_plugin.checks import UserError
from dfpg_plugin.speed.acceleration import channels_last

SMALL = {"num_feat": 16, "num_block": 1, "num_prior_block": 1, "squeeze_factor": 4}
NAFNET = {
    "type": "SpandrelNet",
    "architecture": "NAFNet",
    "options": {"width": 8, "enc_blk_nums": [1, 1, 1], "middle_blk_num": 1, "dec_blk_nums": [1, 1, 1]},
}
GUIDED = {
    "type": "PriorGuidedNet",
    "network": NAFNET,
    "encoder": ["encoders.0", "encoders.1", "encoders.2"],
    "decoder": ["decoders.2", "decoders.1", "decoders.0"],
    "prior_channels": [16, 24, 32],
    "num_prior_block": 1,
    "squeeze_factor": 4,
}


class Recorder(nn.Module):
    """Remember the input; return one function of it, by ``kind``."""

    def __init__(self, kind: str = "same") -> None:
        super().__init__()
        self.kind = kind
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        self.seen = x
        if self.kind == "twice":
            return F.interpolate(x, scale_factor=2, mode="nearest")
        return [x, x.neg()] if self.kind == "two" else x


@pytest.fixture(autouse=True)
def _recorder() -> None:
    ARCH_REGISTRY._obj_map["Recorder"] = Recorder
    yield
    del ARCH_REGISTRY._obj_map["Recorder"]


def adapted(kind: str = "same", **options: object) -> nn.Module:
    return build_network({"type": "AdaptedNet", "network": {"type": "Recorder", "kind": kind}, **options})


@pytest.mark.parametrize(
    ("multiple", "height", "width", "down", "right", "mode"),
    [
        (8, 19, 24, 5, 0, "reflect"), (8, 24, 19, 0, 5, "reflect"), (8, 19, 21, 5, 3, "reflect"),
        (64, 20, 40, 44, 24, "edge"), (64, 70, 20, 58, 44, "edge"), (64, 20, 70, 44, 58, "edge"),
        (16, 8, 33, 8, 15, "edge"), (16, 9, 33, 7, 15, "reflect"),  # 8 rows have 7 to reflect
    ],
)  # fmt: skip
def test_adapted_pads_by_reflection_or_else_by_the_edge_and_crops(
    multiple: int, height: int, width: int, down: int, right: int, mode: str
) -> None:
    net = adapted(multiple=multiple)
    x = torch.rand(2, 3, height, width)
    assert torch.equal(net(x), x)
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (0, down), (0, right)), mode=mode)
    np.testing.assert_array_equal(net.network.seen.numpy(), expected)


def test_adapted_maps_the_range_there_and_back() -> None:
    net = adapted(value_range=[-1, 1])
    x = torch.tensor([0.0, 0.25, 1.0]).reshape(1, 3, 1, 1).expand(1, 3, 4, 4)
    torch.testing.assert_close(net(x), x)
    torch.testing.assert_close(net.network.seen[0, :, 0, 0], torch.tensor([-1.0, -0.5, 1.0]))


def test_adapted_reduces_an_enlarged_image_by_averages() -> None:
    x, pattern = torch.rand(1, 3, 6, 4), torch.rand(1, 3, 12, 8)
    net = adapted("twice", upscale=2)
    net.network.register_forward_hook(lambda module, inputs, enlarged: enlarged + pattern)
    torch.testing.assert_close(net(x), x + pattern.view(1, 3, 6, 2, 4, 2).mean(dim=(3, 5)))


@pytest.mark.parametrize(("kind", "upscale"), [("same", 1), ("twice", 2)])
def test_adapted_adds_the_image_to_a_residual(kind: str, upscale: int) -> None:
    x = torch.rand(2, 3, 6, 5)
    net = adapted(kind, multiple=4, value_range=[-1, 1], upscale=upscale, residual=True)
    difference = (2 * x.double() - 1) / 2  # that network returns its input, in [-1,1]; one unit of [0,1] is two of it
    torch.testing.assert_close(net(x), (x + difference).float())


@pytest.mark.parametrize("contiguous", [True, False])
def test_adapted_keeps_the_order_in_memory_where_the_network_relies_on_it(contiguous: bool) -> None:
    net = channels_last(adapted(multiple=4, contiguous=contiguous))
    net(torch.rand(1, 3, 8, 8).contiguous(memory_format=torch.channels_last))
    assert net.network.seen.is_contiguous() == contiguous
    assert channels_last(nn.Conv2d(3, 4, 3)).weight.is_contiguous() is False
    around = nn.Sequential(adapted(contiguous=True), nn.Conv2d(3, 4, 3))
    assert channels_last(around)[1].weight.is_contiguous()


def test_adapted_chooses_an_output() -> None:
    x = torch.rand(1, 3, 4, 4)
    assert torch.equal(adapted("two", output=1)(x), -x)
    for kind, output, text in (("two", None, "2 outputs. Set `output`"), ("two", 2, "2 outputs. Set `output`"),
                               ("same", 0, "one image. Remove `output`")):  # fmt: skip
        with pytest.raises(UserError, match=f"AdaptedNet output: {output} does not fit. Recorder returns {text}"):
            adapted(kind, output=output)(x)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"value_range": [1, -1]}, "value_range: expected the lowest and highest"),
        ({"multiple": 0}, "multiple: expected a whole number from 1, got 0"),
        ({"upscale": 1.5}, "upscale: expected a whole number from 1, got 1.5"),
        ({"output": "image"}, "output: expected a whole number from 0, got 'image'"),
        ({"value_range": ["a", "b"]}, "value_range: expected the lowest and highest"),
        ({"residual": "yes"}, "residual: 'yes' is not one of True, False"),
    ],
)
def test_adapted_refuses(options: dict, text: str) -> None:
    with pytest.raises(UserError, match=text):
        adapted(**options)


def test_spandrel_returns_its_own_network_with_its_own_names() -> None:
    from spandrel.architectures.NAFNet import NAFNet

    net = build_network(copy.deepcopy(NAFNET))
    assert type(net) is NAFNet
    assert net.state_dict().keys() == NAFNet(**NAFNET["options"]).state_dict().keys()
    assert net(torch.rand(1, 3, 21, 18)).shape == (1, 3, 21, 18)
    real = build_network(
        {"type": "SpandrelNet", "architecture": "PLKSR.RealPLKSR", "options": {"dim": 8, "n_blocks": 1}}
    )
    assert type(real).__name__ == "RealPLKSR"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"architecture": "NAFnet"}, "architecture: 'NAFnet' is not one of .* Did you mean NAFNet"),
        ({"architecture": "PLKSR.Real"}, "architecture: PLKSR: 'Real' is not one of .*RealPLKSR"),
        ({"architecture": "NAFNet", "options": {"widht": 8}}, "NAFNet: unknown key 'widht'. Did you mean width"),
        ({"architecture": "NAFNet", "options": {"width": "wide"}}, "NAFNet can't be built with .*'wide'"),
    ],
)  # fmt: skip
def test_spandrel_refuses(options: dict, text: str) -> None:
    with pytest.raises(UserError, match=text):
        build_network({"type": "SpandrelNet", **options})


def test_spandrel_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *args: object) -> object:
        if name == "spandrel":
            raise ImportError(name)
        return original(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="pip install spandrel"):
        build_network(copy.deepcopy(NAFNET))


def test_spandrel_architecture_whose_packages_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel.architectures.NAFNet", None)
    with pytest.raises(UserError, match="SpandrelNet architecture: NAFNet needs a package that is missing"):
        build_network(copy.deepcopy(NAFNET))


def guided(**changes: object) -> nn.Module:
    torch.manual_seed(0)
    return build_network({**copy.deepcopy(GUIDED), **changes})


def test_guided_is_the_network_run_by_hand() -> None:
    """NAFNet's forward written out, with SSFT, Resblocks and SFT where Fig. 2 has them."""
    net = guided(init_scale=1.0)
    with torch.no_grad():
        for name, p in net.network.named_parameters():
            if name.endswith(("beta", "gamma")):  # NAFNet starts as the identity
                p.fill_(0.5)
    inner = build_network(copy.deepcopy(NAFNET))  # without the hooks of net.network
    inner.load_state_dict(net.network.state_dict())
    x = torch.rand(1, 3, 22, 26)
    features = inner.intro(F.pad(x, (0, 6, 0, 2)))
    skips, estimates = [], []
    for i in range(3):
        features = inner.encoders[i](features)
        skips.append(features)
        estimates.append(net.estimators[i](features))
        features = inner.downs[i](features)
    features = inner.middle_blks(features)
    for i in (2, 1, 0):
        features = inner.ups[2 - i](features) + skips[i]
        features = inner.decoders[2 - i](net.transforms[i](features, estimates[i]))
    expected = (inner.ending(features) + F.pad(x, (0, 6, 0, 2)))[..., :22, :26]
    image, priors = net(x, return_priors=True)
    torch.testing.assert_close(image, expected)
    torch.testing.assert_close(net(x), expected)
    sizes = [(22, 26), (11, 13), (5, 6)]
    for p, estimate, (height, width) in zip(priors, estimates, sizes, strict=True):
        torch.testing.assert_close(p, estimate[..., :height, :width])
    assert (inner(x) - image).abs().max() > 1e-3  # the guide changes the result


class Joining(nn.Module):
    """A part of a decoder that is given a skip besides what it goes on with."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.conv(torch.cat([x, skip], dim=1))


class WithSkips(nn.Module):
    """Three convolutions and three joints: two get their skip by position, one by name."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Conv2d(channels, 4, 3, padding=1) for channels in (3, 4, 4))
        self.join = nn.ModuleList(Joining() for _ in range(3))
        self.last = nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        e1 = self.down[0](x)
        e2 = self.down[1](e1)
        e3 = self.down[2](e2)
        d = self.join[2](self.join[1](self.join[0](e3, e2), e1), skip=e1 - e3)
        return self.last(d)


def test_guided_leaves_a_modules_other_inputs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, "WithSkips", WithSkips)
    points = {"encoder": ["down.0", "down.1", "down.2"], "decoder": ["join.2", "join.1", "join.0"]}
    net = guided(network={"type": "WithSkips"}, **points, prior_strides=[1, 1, 1], init_scale=1.0)
    inner = WithSkips()  # without the hooks of net.network
    inner.load_state_dict(net.network.state_dict())
    x = torch.rand(2, 3, 10, 7)
    e1 = inner.down[0](x)
    e2 = inner.down[1](e1)
    e3 = inner.down[2](e2)
    p1, p2, p3 = (estimator(e) for estimator, e in zip(net.estimators, (e1, e2, e3), strict=True))
    d = inner.join[0](net.transforms[2](e3, p3), e2)
    d = inner.join[1](net.transforms[1](d, p2), e1)
    d = inner.join[2](net.transforms[0](d, p1), e1 - e3)
    torch.testing.assert_close(net(x), inner.last(d))


def test_guided_trains_every_weight_and_copies_stand_alone() -> None:
    net = guided()
    image, priors = net(torch.rand(1, 3, 32, 32), return_priors=True)
    (image.mean() + sum(p.mean() for p in priors)).backward()
    frozen = {name for name, p in net.named_parameters() if p.grad is None}
    assert frozen == set()
    twin = copy.deepcopy(net)
    with torch.no_grad():
        for p in twin.estimators.parameters():
            p.add_(1)
    x = torch.rand(1, 3, 32, 32)
    before = net(x, return_priors=True)[1]
    assert not torch.equal(twin(x, return_priors=True)[1][0], before[0])
    assert torch.equal(net(x, return_priors=True)[1][0], before[0])
    assert net.priors == twin.priors == {}


def test_guided_takes_other_priors() -> None:
    net = guided(prior_channels=[8, 8, 8], prior_strides=[2, 2, 8])
    _, priors = net(torch.rand(1, 3, 32, 48), return_priors=True)
    assert [p.shape for p in priors] == [(1, 8, 16, 24), (1, 8, 16, 24), (1, 8, 4, 6)]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"encoder": ["encoders.0", "encoders.1", "encoder.2"]}, "no module 'encoder.2'. Did you mean encoders.2"),
        ({"encoder": ["encoders.0"]}, "encoder: expected three, got"),
        ({"decoder": ["decoders.1", "decoders.2", "decoders.0"]}, "encoders.0 has stride 1, .* of decoders.1 stride 2"),
        ({"encoder": ["ending", "encoders.1", "encoders.2"]}, "decoders.2 comes before ending"),
        ({"encoder": ["encoders", "encoders.1", "encoders.2"]}, "encoders gives no feature map"),
        ({"squeeze_factor": 16}, r"squeeze_factor: 16 is above a width of \[8, 16, 32\]"),
        ({"prior_strides": [1, 3, 4]}, r"prior_strides: expected multiples of \[1, 2, 4\], got \[1, 3, 4\]"),
    ],
)  # fmt: skip
def test_guided_refuses(changes: dict, text: str) -> None:
    with pytest.raises(UserError, match=text):
        guided(**changes)


def test_guided_refuses_to_be_one_of_several_replicas() -> None:
    with pytest.raises(UserError, match="needs one process for each GPU"):
        guided()._replicate_for_data_parallel()(torch.rand(1, 3, 32, 32))


def test_dfpgnets_estimates_have_the_priors_strides() -> None:
    coarse = DFPGNet(prior_channels=(5, 6, 7), prior_strides=(2, 2, 16), **SMALL)
    fine = DFPGNet(prior_channels=(5, 6, 7), **SMALL)
    fine.load_state_dict(coarse.state_dict())
    x = torch.rand(1, 3, 37, 50)
    image, priors = coarse(x, return_priors=True)
    same_image, fine_priors = fine(x, return_priors=True)
    assert torch.equal(image, same_image)
    assert [p.shape for p in priors] == [(1, 5, 18, 25), (1, 6, 18, 25), (1, 7, 2, 3)]
    torch.testing.assert_close(priors[2][0, :, 1, 2], fine_priors[2][0, :, 4:8, 8:12].mean(dim=(1, 2)))


@pytest.mark.parametrize("strides", [(1, 2), (1, 2, 6), (1, 0, 4), (1, 1, 4)])
def test_dfpgnet_refuses_strides_that_its_scales_do_not_divide(strides: tuple) -> None:
    with pytest.raises(UserError, match=r"DFPGNet prior_strides: expected multiples of \[1, 2, 4\]"):
        DFPGNet(prior_strides=strides, **SMALL)


def test_a_guided_network_names_a_feature_that_is_no_whole_fraction(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 3, (3, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.first(x)

    monkeypatch.setitem(ARCH_REGISTRY._obj_map, "Cropping", Cropping)
    with pytest.raises(UserError, match=r"encoder: first has 126x127 px of an image of 128x128, no whole fraction"):
        guided(network={"type": "Cropping"}, encoder=["first"] * 3, decoder=["first"] * 3, squeeze_factor=1)


@pytest.mark.parametrize("strides", [(2, 4, 8), (1, 2, 8), (4, 4, 4), (1, 4, 16)])
def test_the_discriminator_takes_features_of_other_strides(strides: tuple) -> None:
    net = CAFeatureDiscriminator(prior_channels=(16, 20, 24), prior_strides=strides, num_feat=4)
    size = 6 * strides[-1]
    features = [torch.rand(1, c, size // s, size // s) for c, s in zip((16, 20, 24), strides, strict=True)]
    assert net(features).shape == (1, 1, 1, 1)


@pytest.mark.parametrize("strides", [(1, 2), (1, 3, 6), (2, 1, 4), (0, 0, 0), (1, 2, 3)])
def test_the_discriminator_refuses_other_strides(strides: tuple) -> None:
    with pytest.raises(UserError, match="prior_strides: expected three numbers, each the same as the one before"):
        CAFeatureDiscriminator(prior_strides=strides)


def test_the_discriminator_says_that_the_layers_do_not_fit() -> None:
    net = CAFeatureDiscriminator(num_feat=4)
    sizes = ((64, 42, 34), (128, 21, 17), (256, 11, 9))  # of an extractor that rounds up
    with pytest.raises(UserError, match=r"features of 11x9 do not fit .* now 10x8\. Set gt_size to a multiple"):
        net([torch.rand(1, c, height, width) for c, height, width in sizes])


def test_the_discriminator_says_that_images_are_too_small() -> None:
    net = CAFeatureDiscriminator(num_feat=4)
    with pytest.raises(UserError, match="features are 5x8, and need 6 pixels a side"):
        net([torch.rand(1, c, 20 // s, 32 // s) for c, s in zip((64, 128, 256), (1, 2, 4), strict=True)])


def test_a_decoder_point_without_positional_input_is_named() -> None:
    class ByKeyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(input=self.first(x))

    ARCH_REGISTRY._obj_map["ByKeyword"] = ByKeyword
    try:
        with pytest.raises(UserError, match="PriorGuidedNet decoder: second gets its input by keyword"):
            guided(network={"type": "ByKeyword"}, encoder=["first"] * 3, decoder=["second"] * 3, squeeze_factor=1)
    finally:
        del ARCH_REGISTRY._obj_map["ByKeyword"]


@pytest.mark.parametrize("wrapper", ["AdaptedNet", "PriorGuidedNet"])
def test_wrappers_load_files_of_the_network_inside_and_their_own(wrapper: str) -> None:
    bare = build_network(copy.deepcopy(NAFNET))
    net = guided() if wrapper == "PriorGuidedNet" else build_network({"type": wrapper, "network": NAFNET})
    added = [name for name in net.state_dict() if not name.startswith("network.")]
    missing = net.load_state_dict(bare.state_dict(), strict=not added).missing_keys
    assert missing == added
    for name, value in bare.state_dict().items():
        assert torch.equal(net.state_dict()[f"network.{name}"], value)
    net.load_state_dict(copy.deepcopy(net.state_dict()))
    inner = copy.deepcopy(GUIDED if added else {"type": wrapper, "network": NAFNET})
    outer = build_network({"type": "AdaptedNet", "network": inner})
    outer.load_state_dict(net.state_dict())
    assert torch.equal(outer.state_dict()["network.network.intro.weight"], bare.state_dict()["intro.weight"])
    with pytest.raises(RuntimeError, match=r"Missing key.*network\.intro\.weight"):
        net.load_state_dict({"else.weight": torch.ones(1)})
