"""The script that draws the documentation's pictures."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from kit import ROOT

FACE = 128  # px
LOG = """
[epoch: 0, iter: 100, lr:(2.000e-04,)] l_g_pix: 4.0e-02 l_g_prior: 3.0e-02 cos_p1: 0.6 cos_p2: 0.5 cos_p3: 0.4
[epoch: 1, iter: 1,200, lr:(2.000e-04,)] l_g_pix: 3.0e-02 l_g_prior: 2.0e-02 cos_p1: 0.8 cos_p2: 0.7 cos_p3: 0.6
"""


@pytest.mark.slow
def test_the_pictures_of_the_documentation_are_drawn(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text(LOG)
    subprocess.run(
        [sys.executable, "scripts/draw_demo.py", tmp_path, "--log", tmp_path / "train.log"], cwd=ROOT, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, timeout=600,
    )  # fmt: skip
    drawn = {file.name: cv2.imread(str(file)).astype(np.float64) for file in tmp_path.glob("*.png")}
    assert set(drawn) == {"restored.png", "demo_restored.png", "teaser.png", "demo_prior.png", "demo_curves.png"}
    smallest_blur = drawn["demo_restored.png"][:FACE]
    sharp, *pairs = np.split(smallest_blur, 7, axis=1)
    for blurred, restored in zip(pairs[::2], pairs[1::2], strict=True):
        assert np.mean((restored - sharp) ** 2) < 0.7 * np.mean((blurred - sharp) ** 2)
    assert np.array_equal(drawn["teaser.png"][:FACE, : 3 * FACE], np.hstack([*pairs[:2], sharp]))
