"""The generator: size, shapes, range, the flow of Fig. 2 and the ablations of Table 4."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dfpg_plugin.archs.dfpgnet_arch import DFPGNet
from dfpg_plugin.checks import UserError


def small_net(**options: object) -> DFPGNet:
    return DFPGNet(**{"num_feat": 16, "num_block": 1, "num_prior_block": 1, **options})


def num_parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_default_network_has_the_parameters_of_the_laboratorys() -> None:
    net = DFPGNet()
    assert num_parameters(net) == 44_661_379
    parts = {"encoder": net.encoder, "prior": net.prior, "decoder": net.decoder}
    millions = {name: num_parameters(part) / 1e6 for name, part in parts.items()}
    sft = sum(num_parameters(fuse) for fuse in (net.decoder.fuse1, net.decoder.fuse2, net.decoder.fuse3)) / 1e6
    middle = num_parameters(net.encoder.middle) / 1e6
    assert millions["encoder"] - middle == pytest.approx(8.46, abs=0.005)
    assert millions["prior"] == pytest.approx(18.70, abs=0.005)
    assert middle == pytest.approx(5.94, abs=0.005)
    assert sft == pytest.approx(3.10, abs=0.005)
    assert millions["decoder"] - sft == pytest.approx(8.46, abs=0.005)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 23), (112, 92), (30, 33), (16, 47)])
def test_output_has_the_inputs_size_and_priors_have_vggs(height: int, width: int) -> None:
    image, priors = small_net()(torch.rand(2, 3, height, width), return_priors=True)
    assert image.shape == (2, 3, height, width)
    expected = [(2, 64 * s, height // s, width // s) for s in (1, 2, 4)]
    assert [tuple(p.shape) for p in priors] == expected


def test_output_stays_in_range_whatever_the_weights() -> None:
    net = small_net()
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(4)
        image = net(torch.rand(1, 3, 24, 24))
    assert image.min() >= 0
    assert image.max() <= 1
    assert image.std() > 0.1


def test_channels_of_input_and_output_are_options() -> None:
    assert small_net(num_in_ch=1, num_out_ch=2)(torch.rand(1, 1, 16, 16)).shape == (1, 2, 16, 16)


def test_init_scale_is_a_factor_on_the_weights() -> None:
    nets = []
    for scale in (0.1, 0.4):
        torch.manual_seed(0)
        nets.append(small_net(init_scale=scale))
    torch.testing.assert_close(4 * nets[0].encoder.head.weight, nets[1].encoder.head.weight)


def test_every_convolution_starts_with_kaimings_weights_times_the_scale_and_without_a_bias() -> None:
    net = small_net(prior_channels=(5, 6, 7), init_scale=0.3)
    layers = [layer for layer in net.modules() if list(layer.parameters(recurse=False))]
    assert {type(layer) for layer in layers} == {nn.Conv2d, nn.ConvTranspose2d}
    for layer in layers:
        kaiming = (2 / layer.weight[0].numel()) ** 0.5  # fan in as torch counts it: what one row of the weights holds
        size = layer.weight.detach().square().mean().sqrt().item()
        scatter = (2 * layer.weight.numel()) ** -0.5
        assert size == pytest.approx(0.3 * kaiming, rel=5 * scatter), layer
        assert layer.bias is None or not layer.bias.any(), layer


@pytest.mark.parametrize(
    "options",
    [{}, {"prior_channels": (5, 6, 7)}, {"feature_transform": False}, {"prior_stream": False}],
    ids=["B7", "projected", "B3", "B1"],
)
def test_forward_is_fig_2_written_out(options: dict) -> None:
    net = small_net(init_scale=1.0, **options).eval()
    encoder, decoder = net.encoder, net.decoder
    x = torch.rand(2, 3, 18, 23)
    with torch.no_grad():
        e0 = encoder.head(2 * F.pad(x, (0, 1, 0, 2), mode="reflect") - 1)
        e1 = encoder.scale1(e0)
        e2 = encoder.scale2[1](encoder.scale2[0](e1))
        e3 = encoder.scale3[1](encoder.scale3[0](e2))
        d3, estimates = encoder.middle(e3), []
        if net.prior is not None:
            estimates = [p.project(p.blocks(p.ssft(e))) for p, e in zip(net.prior, (e1, e2, e3), strict=True)]
            d3 = decoder.fuse3(d3, estimates[2])
        d2 = decoder.up3(decoder.scale3(d3))
        d1 = decoder.up2(decoder.scale2(decoder.fuse2(d2, estimates[1]) if estimates else d2))
        d0 = decoder.scale1(decoder.fuse1(d1, estimates[0]) if estimates else d1)
        expected = (decoder.tail(d0 + e0).tanh()[..., :18, :23] + 1) / 2
        torch.testing.assert_close(net(x), expected)
        if estimates:
            for p, estimate, (height, width) in zip(
                net(x, return_priors=True)[1], estimates, ((18, 23), (9, 11), (4, 5)), strict=True
            ):
                torch.testing.assert_close(p, estimate[..., :height, :width])


def test_padding_leaves_multiples_of_four_alone() -> None:
    net = small_net().eval()
    x = torch.rand(1, 3, 22, 21)
    padded = torch.nn.functional.pad(x, (0, 3, 0, 2), mode="reflect")
    torch.testing.assert_close(net(x), net(padded)[..., :22, :21])


def test_every_parameter_gets_a_gradient() -> None:
    net = small_net()
    image, priors = net(torch.rand(1, 3, 16, 16), return_priors=True)
    (image.mean() + sum(p.mean() for p in priors)).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


def test_image_loss_alone_reaches_the_prior_stream_through_the_decoder() -> None:
    net = small_net()
    net(torch.rand(1, 3, 16, 16)).mean().backward()
    assert all(p.grad is not None for p in net.prior.parameters())


def test_e0_reaches_d0_by_the_global_skip() -> None:
    net = small_net()
    e0, _, e4 = net.encoder(torch.rand(1, 3, 16, 16))
    with torch.no_grad():
        priors = [p(e) for p, e in zip(net.prior, net.encoder(torch.rand(1, 3, 16, 16))[1], strict=True)]
        moved = net.decoder(e0 + 1, e4, priors) - net.decoder(e0, e4, priors)
    expected = net.decoder.tail.weight.sum((1, 2, 3)).view(1, 3, 1, 1).expand_as(moved)
    torch.testing.assert_close(moved, expected)


def test_decoder_uses_each_prior() -> None:
    net = small_net()
    e0, e_prior, e4 = net.encoder(torch.rand(1, 3, 16, 16))
    priors = [p(e) for p, e in zip(net.prior, e_prior, strict=True)]
    reference = net.decoder(e0, e4, priors)
    for i in range(3):
        changed = [p + 1 if j == i else p for j, p in enumerate(priors)]
        assert not torch.equal(net.decoder(e0, e4, changed), reference)


def test_without_prior_stream_it_is_model_b1() -> None:
    net = small_net(prior_stream=False)
    assert net(torch.rand(1, 3, 18, 16)).shape == (1, 3, 18, 16)
    names = [name for name, _ in net.named_modules()]
    assert not [n for n in names if "ssft" in n or "fuse" in n or n.startswith("prior")]
    with pytest.raises(UserError, match="prior_stream"):
        net(torch.rand(1, 3, 16, 16), return_priors=True)


def test_without_feature_transform_it_is_model_b3() -> None:
    net = small_net(feature_transform=False)
    assert not [n for n, _ in net.named_parameters() if "ssft" in n or "fuse1.scale" in n]
    _, priors = net(torch.rand(1, 3, 16, 16), return_priors=True)
    assert len(priors) == 3


def test_small_images_and_wrong_options_are_refused() -> None:
    with pytest.raises(UserError, match="15x16 px is too small"):
        small_net()(torch.rand(1, 3, 15, 16))
    with pytest.raises(UserError, match="squeeze_factor"):
        DFPGNet(num_feat=8)
    with pytest.raises(UserError, match="three numbers"):
        DFPGNet(prior_channels=[64, 128])
    with pytest.raises(TypeError, match="num_feats"):
        DFPGNet(num_feats=16)


def test_use_checkpoint_keeps_less_and_gives_the_same_gradients() -> None:
    kept, gradients = [], []
    for use_checkpoint in (False, True):
        torch.manual_seed(0)
        net = DFPGNet(num_feat=16, num_block=2, num_prior_block=2, squeeze_factor=4, use_checkpoint=use_checkpoint)
        size = [0]

        def pack(tensor: torch.Tensor, size: list = size) -> torch.Tensor:
            size[0] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            image, priors = net(torch.rand(1, 3, 32, 32), return_priors=True)
        (image.sum() + sum(p.sum() for p in priors)).backward()
        kept.append(size[0])
        gradients.append({name: p.grad for name, p in net.named_parameters()})
    assert kept[1] < 0.75 * kept[0]
    for name, gradient in gradients[0].items():
        assert torch.equal(gradients[1][name], gradient), name
