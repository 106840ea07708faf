"""The layers of Fig. 3 against their equations in float64, and the residual block against RCAN's definition."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dfpg_plugin.archs.blocks import SFT, SSFT, AddPrior, ChannelAttention, ResBlock, ResGroup, init_kaiming


def branch_reference(branch: nn.Sequential, condition: Tensor) -> Tensor:
    """Conv - LeakyReLU(0.2) - conv, from the weights alone."""
    first, last = branch[0], branch[2]
    hidden = F.conv2d(condition, first.weight, first.bias, padding=1)
    hidden = torch.where(hidden > 0, hidden, 0.2 * hidden)
    return F.conv2d(hidden, last.weight, last.bias, padding=1)


def test_sft_is_equation_2() -> None:
    sft = SFT(5, 7).double()
    d, prior = torch.randn(2, 5, 6, 8).double(), torch.randn(2, 7, 6, 8).double()
    alpha = 1 + branch_reference(sft.scale, prior)
    beta = branch_reference(sft.shift, prior)
    torch.testing.assert_close(sft(d, prior), alpha * d + beta)


def test_ssft_is_equation_1() -> None:
    ssft = SSFT(5).double()
    e = torch.randn(2, 5, 6, 8).double()
    alpha = 1 + branch_reference(ssft.scale, e)
    beta = branch_reference(ssft.shift, e)
    torch.testing.assert_close(ssft(e), alpha * e + beta)


def test_sft_starts_near_the_identity() -> None:
    sft = SFT(8, 8)
    init_kaiming(sft, scale=0.1)
    d = torch.randn(1, 8, 9, 9)
    assert (sft(d, torch.randn(1, 8, 9, 9)) - d).abs().mean() < 0.1 * d.abs().mean()


def test_res_block_is_rcans_with_leaky_relu() -> None:
    block = ResBlock(32, squeeze_factor=16).double()
    x = torch.randn(2, 32, 5, 4).double()
    conv1, _, conv2, attention = block.body
    body = F.leaky_relu(F.conv2d(x, conv1.weight, conv1.bias, padding=1), 0.2)
    body = F.conv2d(body, conv2.weight, conv2.bias, padding=1)
    squeeze, excite = attention.attention[1], attention.attention[3]
    pooled = body.mean((2, 3))
    weights = torch.sigmoid(
        F.relu(pooled @ squeeze.weight[..., 0, 0].T + squeeze.bias) @ excite.weight[..., 0, 0].T + excite.bias
    )
    torch.testing.assert_close(block(x), x + body * weights[..., None, None])


def test_the_form_of_the_attention_for_compiling_is_rcans(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 8, 5, 7)
    x[1] *= 3
    attention = ChannelAttention(8, 4)
    expected = attention(x)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(attention(x), expected)
    assert (attention(x) - x).abs().max() > 0.1


def test_res_group_adds_its_input() -> None:
    group = ResGroup(16, 2)
    x = torch.randn(1, 16, 8, 8)
    torch.testing.assert_close(group(x), x + group.blocks[1](group.blocks[0](x)))


@pytest.mark.parametrize("condition_channels", [4, 6, 9])
def test_add_prior_adds_and_projects_where_widths_differ(condition_channels: int) -> None:
    add = AddPrior(6, condition_channels)
    x, prior = torch.randn(1, 6, 4, 4), torch.randn(1, condition_channels, 4, 4)
    projected = (
        prior if condition_channels == 6 else torch.einsum("oc,bchw->bohw", add.project.weight[..., 0, 0], prior)
    )
    if condition_channels != 6:
        projected = projected + add.project.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(add(x, prior), x + projected)


def test_init_has_the_variance_of_kaiming_times_the_scale() -> None:
    conv = nn.Conv2d(64, 256, 3)
    init_kaiming(conv, scale=0.1)
    assert conv.bias.abs().max() == 0
    kaiming = (2 / (64 * 9)) ** 0.5
    assert conv.weight.std().item() == pytest.approx(0.1 * kaiming, rel=0.005)  # 147456 draws scatter by 0.002
