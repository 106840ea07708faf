"""A network that adds a tenth, under a name."""

import pytest
from basicsr.utils.registry import ARCH_REGISTRY
from kit import Brighten, register


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, ARCH_REGISTRY, Brighten)
