"""The patches of BasicSR: that they are needed, that they work, that they step aside."""

import importlib.util
import sys
import types
from collections.abc import Callable

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
