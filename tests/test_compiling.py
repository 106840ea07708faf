"""Code that is compiled once a machine."""

from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import pytest

from dfpg_plugin.compiling import compiled

BLUR = """
import sys
import numpy as np
import dfpg_plugin
from dfpg_plugin.data import degradation
rng = np.random.default_rng(0)
blurred = degradation.blur(rng.random((9, 9, 3), np.float32), rng.random((5, 5), np.float32))
stats = degradation._convolution().stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()), blurred.tobytes().hex())
"""


def test_the_blur_is_compiled_once_and_gives_the_same_bits_when_it_is_loaded(basicsr: Callable, tmp_path: Path) -> None:
    first, second = (basicsr(code=BLUR, env={"NUMBA_CACHE_DIR": str(tmp_path / "cache")}) for _ in range(2))
    assert first.stdout.split()[:2] == ["0", "1"], first.stderr
    assert second.stdout.split()[:2] == ["1", "0"], second.stderr
    assert first.stdout.split()[2] == second.stdout.split()[2]


def test_it_is_compiled_where_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    njit = numba.njit

    def unwritable(cache: bool = False, **options: bool) -> Callable:
        if cache:
            raise RuntimeError("cannot cache function 'twice': no locator available")
        return njit(**options)

    with monkeypatch.context() as patched:
        patched.setattr(numba, "njit", unwritable)
        twice = compiled(lambda x: 2 * x)
    assert np.array_equal(twice(np.arange(3)), [0, 2, 4])
