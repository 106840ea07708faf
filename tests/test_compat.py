"""The patches of BasicSR: that they are needed, that they work, that they step aside."""

import importlib.util
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dfpg_plugin import compat


def test_basicsr_alone_can_not_be_imported_and_after_this_package_it_can(basicsr: Callable) -> None:
    alone = basicsr(code="import basicsr")
    assert "functional_tensor" in alone.stderr
    assert basicsr(code="import dfpg_plugin, basicsr").returncode == 0


def test_functional_tensor_is_the_one_function_that_basicsr_takes() -> None:
    module = sys.modules[compat.FUNCTIONAL_TENSOR]
    image = torch.rand(1, 3, 2, 2)
    weights = torch.tensor([0.2989, 0.587, 0.114]).view(1, 3, 1, 1)
    torch.testing.assert_close(module.rgb_to_grayscale(image), (image * weights).sum(1, keepdim=True))


def test_a_module_that_is_there_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    other = types.ModuleType("other")
    monkeypatch.setitem(sys.modules, compat.FUNCTIONAL_TENSOR, other)
    compat.provide_functional_tensor()
    assert sys.modules[compat.FUNCTIONAL_TENSOR] is other
    assert not compat.PATCHES[0].active()
    monkeypatch.delitem(sys.modules, compat.FUNCTIONAL_TENSOR)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    compat.provide_functional_tensor()
    assert compat.FUNCTIONAL_TENSOR not in sys.modules


def test_stock_resume_is_mended_only_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    import basicsr.train

    monkeypatch.setattr(basicsr.train, "load_resume_state", basicsr.train.load_resume_state)
    patch = compat.PATCHES[1]

    def ours(opt: dict) -> None:
        return None

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    compat.mend_stock_resume(ours)
    assert not patch.active()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    compat.mend_stock_resume(ours)
    assert patch.active()
    assert basicsr.train.load_resume_state is ours


SLOPE, SCALE = 0.2, 2**0.5


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4, 5)])
def test_the_activation_of_stylegan2_has_the_values_and_derivatives_of_its_formula(shape: tuple[int, ...]) -> None:
    from basicsr.ops.fused_act import FusedLeakyReLU, fused_leaky_relu

    x = torch.randn(shape, dtype=torch.double, requires_grad=True)
    bias = torch.randn(3, dtype=torch.double, requires_grad=True)
    shifted = x + bias.view(1, 3, *[1] * (x.ndim - 2))
    by_hand = torch.where(shifted > 0, shifted, SLOPE * shifted) * SCALE
    torch.testing.assert_close(fused_leaky_relu(x, bias, SLOPE, SCALE), by_hand, rtol=0, atol=0)
    weights = torch.randn_like(by_hand)
    slopes = weights * torch.where(shifted > 0, 1.0, SLOPE) * SCALE
    (by_x, by_bias) = torch.autograd.grad((fused_leaky_relu(x, bias) * weights).sum(), (x, bias))
    torch.testing.assert_close(by_x, slopes)
    torch.testing.assert_close(by_bias, slopes.transpose(0, 1).flatten(1).sum(1))
    assert torch.autograd.gradcheck(fused_leaky_relu, (x, bias))
    assert torch.autograd.gradgradcheck(fused_leaky_relu, (x, bias))
    assert torch.equal(FusedLeakyReLU(3)(x.float()), fused_leaky_relu(x.float(), torch.zeros(3)))


@pytest.mark.parametrize(("up", "down", "pad"), [(1, 1, (1, 2)), (2, 1, (2, 1)), (1, 2, (1, 1)), (2, 3, (-1, 2))])
def test_the_resampling_for_gpus_is_that_for_cpus_with_its_derivatives(
    up: int, down: int, pad: tuple[int, int]
) -> None:
    module = sys.modules[compat.UPFIRDN2D]
    kernel = torch.rand(4, 4, dtype=torch.double)
    x = torch.randn(2, 3, 7, 6, dtype=torch.double, requires_grad=True)

    def for_gpus(x: torch.Tensor) -> torch.Tensor:
        return module.UpFirDn2d.apply(x, kernel, (up, up), (down, down), (*pad, *pad))

    torch.testing.assert_close(for_gpus(x), module.upfirdn2d(x, kernel, up, down, pad), rtol=0, atol=0)
    for function in (for_gpus, lambda x: module.upfirdn2d(x, kernel, up, down, pad)):
        assert torch.autograd.gradcheck(function, (x,))
        assert torch.autograd.gradgradcheck(function, (x,))


def test_extensions_that_were_built_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    patch = next(patch for patch in compat.PATCHES if patch.name == "stylegan2_ops")
    assert patch.active()
    built = types.SimpleNamespace()
    for module, extension in compat.EXTENSIONS.items():
        monkeypatch.setattr(sys.modules[module], extension, built)
    compat.provide_stylegan2_ops()
    assert sys.modules[compat.FUSED_ACT].fused_act_ext is built
    assert not patch.active()


def test_adam_takes_betas_of_a_whole_number_and_a_fraction() -> None:
    from basicsr.models.base_model import BaseModel

    parameter = torch.nn.Parameter(torch.zeros(1))
    with pytest.raises(ValueError, match="betas"):
        torch.optim.Adam([parameter], betas=(0, 0.99))
    model = BaseModel({"num_gpu": 0, "is_train": True})
    optimizer = model.get_optimizer("Adam", [parameter], 0.1, betas=(0, 0.99), weight_decay=0.5)
    (group,) = optimizer.param_groups
    assert (group["betas"], group["lr"], group["weight_decay"]) == ((0.0, 0.99), 0.1, 0.5)
    mended = BaseModel.get_optimizer
    compat.mend_adam_betas()
    assert BaseModel.get_optimizer is mended


def test_jpeg_compression_takes_a_quality_between_two_whole_ones() -> None:
    from basicsr.data import degradations

    image = np.random.default_rng(0).random((16, 16, 3), np.float32)
    between = degradations.add_jpg_compression(image, 60.7)
    np.testing.assert_array_equal(between, degradations.add_jpg_compression(image, 60))
    assert np.abs(between - degradations.add_jpg_compression(image, 61)).max() > 0
    np.random.seed(0)
    assert degradations.random_add_jpg_compression(image, (60, 100)).shape == image.shape


def test_numpys_numbers_are_loaded_and_nothing_that_executes(tmp_path: Path) -> None:
    landmarks = {"00000000": {"left_eye": list(np.array([1.5, 2.5, 3.5]))}}
    torch.save(landmarks, tmp_path / "a.pth")
    assert torch.load(tmp_path / "a.pth") == landmarks
    torch.save({"a": Path.touch}, tmp_path / "b.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "b.pth")


def test_without_the_package_each_of_these_fails(basicsr: Callable, tmp_path: Path) -> None:
    """The patches are needed: each defect is still there when BasicSR is imported without them."""
    torch.save({"a": np.float64(1)}, tmp_path / "numbers.pth")
    code = f"""
import sys, types
from torchvision.transforms.functional import rgb_to_grayscale
module = sys.modules["{compat.FUNCTIONAL_TENSOR}"] = types.ModuleType("functional_tensor")
module.rgb_to_grayscale = rgb_to_grayscale
import numpy as np, torch
from basicsr.data import degradations
from basicsr.models.base_model import BaseModel
from basicsr.ops.fused_act import FusedLeakyReLU
defects = (
    lambda: FusedLeakyReLU(3)(torch.zeros(1, 3)),
    lambda: BaseModel({{"num_gpu": 0, "is_train": True}}).get_optimizer("Adam", [torch.zeros(1)], 1, betas=(0, 0.9)),
    lambda: degradations.add_jpg_compression(np.zeros((8, 8, 3), np.float32), 60.7),
    lambda: torch.load("numbers.pth"),
)
for defect in defects:
    try:
        defect()
        print("works")
    except Exception as error:
        print(type(error).__name__)
import dfpg_plugin
for defect in defects:
    defect()
"""
    done = basicsr(code=code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["NameError", "ValueError", "error", "UnpicklingError"]
