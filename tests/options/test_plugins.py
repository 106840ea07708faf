"""Plugins by entry point and by name, beside each other."""

from collections.abc import Callable

import pytest

from dfpg_plugin.checks import UserError
from dfpg_plugin.options.plugins import load_plugins


def test_this_package_is_an_entry_point() -> None:
    assert load_plugins() == ["dfpg_plugin"]
    assert load_plugins(["dfpg_plugin"]) == ["dfpg_plugin"]


def test_a_plugin_that_is_missing_or_fails_is_named() -> None:
    with pytest.raises(UserError, match=r"plugins: nowhere_plugin can't be imported .ModuleNotFoundError"):
        load_plugins(["nowhere_plugin"])
    with pytest.raises(UserError, match="list of package names"):
        load_plugins("gfpgan")


@pytest.mark.parametrize("order", [["gfpgan", "realesrgan"], ["realesrgan", "gfpgan", "dfpg_plugin", "gfpgan"]])
def test_gfpgan_and_realesrgan_load_beside_it_in_any_order_and_twice(basicsr: Callable, order: list[str]) -> None:
    done = basicsr("list", "--plugins", *order)
    assert done.returncode == 0, done.stderr
    rows = {tuple(line.split()) for line in done.stdout.splitlines()}
    expected = {
        ("arch", "DFPGNet", "dfpg_plugin"), ("arch", "GFPGANv1", "gfpgan"), ("model", "GFPGANModel", "gfpgan"),
        ("model", "RealESRGANModel", "realesrgan"), ("model", "DFPGModel", "dfpg_plugin"),
        ("arch", "RRDBNet", "basicsr"),
    }  # fmt: skip
    assert expected <= rows


@pytest.mark.parametrize("first", ["gfpgan, realesrgan, dfpg_plugin", "realesrgan, dfpg_plugin, gfpgan"])
def test_it_may_come_after_plugins_whose_users_patched_torchvision_themselves(basicsr: Callable, first: str) -> None:
    code = f"""
import sys, types
from torchvision.transforms.functional import rgb_to_grayscale
module = sys.modules["torchvision.transforms.functional_tensor"] = types.ModuleType("functional_tensor")
module.rgb_to_grayscale = rgb_to_grayscale
import {first}
from dfpg_plugin import compat
assert not compat.PATCHES[0].active()
from basicsr.utils.registry import ARCH_REGISTRY
assert "DFPGNet" in ARCH_REGISTRY and "GFPGANv1" in ARCH_REGISTRY
"""
    done = basicsr(code=code)
    assert done.returncode == 0, done.stderr


def test_the_package_may_be_imported_after_the_others(basicsr: Callable) -> None:
    code = """
try:
    import gfpgan  # fails on today's torchvision without the patch
except ModuleNotFoundError as error:
    assert "functional_tensor" in str(error)
import importlib, dfpg_plugin, gfpgan, realesrgan
importlib.reload(dfpg_plugin)
from basicsr.utils.registry import ARCH_REGISTRY
assert "DFPGNet" in ARCH_REGISTRY and "GFPGANv1" in ARCH_REGISTRY
"""
    done = basicsr(code=code)
    assert done.returncode == 0, done.stderr
