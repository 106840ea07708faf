"""The examples run as they stand, on small inputs, and do what they say."""

import re
import runpy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import spandrel
from kit import ROOT, photo, write_faces
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

EXAMPLES = ROOT / "examples"
PAGE = ROOT / "docs" / "python.md"
Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Run:
    """Run an example in this process; return what it prints."""

    def run_example(name: str, *arguments: object) -> str:
        monkeypatch.setattr("sys.argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run_example


def test_each_example_is_short_and_is_run_here() -> None:
    own = Path(__file__).read_text(encoding="utf-8")
    for example in EXAMPLES.glob("*.py"):
        assert len(example.read_text(encoding="utf-8").splitlines()) < 40
        assert f'run("{example.name}"' in own


def test_a_photo_is_restored_where_its_faces_are(run: Run, tmp_path: Path) -> None:
    before = cv2.GaussianBlur(photo()[:, 400:], (0, 0), 1.5)  # of its three faces the astronaut's
    cv2.imwrite(str(tmp_path / "photo.png"), before)
    assert "restored.png: 300 x 400 px" in run("restore_a_photo.py", tmp_path / "photo.png", tmp_path / "restored.png")
    change = np.abs(cv2.imread(str(tmp_path / "restored.png")).astype(int) - before).max(axis=2)
    assert (change[80:200, 90:200] > 0).mean() > 0.7
    assert not change[330:].any()


def test_the_prior_loss_falls(run: Run, tmp_path: Path) -> None:
    said = run("prior_loss_in_torch.py", write_faces(tmp_path / "faces", slice(None, None, 160)), 9)
    losses = [float(value) for value in re.findall(r"^step \d+: loss ([\d.]+)$", said, re.MULTILINE)]
    assert len(losses) == 9
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])


def test_the_pages_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (face, *_) = sorted(write_faces(tmp_path / "faces", slice(None, None, 160)).iterdir())
    cv2.imwrite("face.png", cv2.imread(str(face)))
    for name, value in vars(spandrel.MAIN_REGISTRY).items():  # so that the registration ends with the test
        monkeypatch.setattr(spandrel.MAIN_REGISTRY, name, value)
    alone, in_spandrel = re.findall(
        r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    exec(compile(alone, PAGE, "exec"), {})
    assert cv2.imread("restored.png").shape == cv2.imread("face.png").shape
    names: dict = {}
    exec(compile(in_spandrel, PAGE, "exec"), names)
    assert names["model"].architecture.id == "DFPGNet"


def ssim_of_the_whole_map(x: NDArray, y: NDArray) -> float:
    """SSIM-3D of grey images, whose channels are equal: the SSIM of one, borders replicated and counted."""
    smooth = partial(gaussian_filter, sigma=1.5, radius=5, mode="nearest")
    a, b = smooth(x), smooth(y)
    covariance, variances = smooth(x * y) - a * b, smooth(x * x + y * y) - a * a - b * b
    c1, c2 = 2.55**2, 7.65**2
    return float(np.mean((2 * a * b + c1) * (2 * covariance + c2) / ((a * a + b * b + c1) * (variances + c2))))


def test_two_folders_are_measured_as_scikit_image_measures_them(run: Run, tmp_path: Path) -> None:
    sharp = write_faces(tmp_path / "sharp", slice(None, None, 160))
    (tmp_path / "restored").mkdir()
    psnr, ssim, whole = [], [], []
    for file in sorted(sharp.iterdir()):
        image = cv2.imread(str(file))
        blurred = cv2.GaussianBlur(image, (0, 0), 1)
        cv2.imwrite(str(tmp_path / "restored" / file.name), blurred)
        psnr.append(peak_signal_noise_ratio(image, blurred))
        settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        full = structural_similarity(image, blurred, channel_axis=2, full=True, **settings)[1]
        ssim.append(full[5:-5, 5:-5].mean())
        whole.append(ssim_of_the_whole_map(image[..., 0].astype(float), blurred[..., 0].astype(float)))
    said = run("measure_two_folders.py", tmp_path / "restored", sharp).splitlines()
    assert len(said) == 3
    found = [float(value) for value in re.findall(r"[\d.]+(?= dB|, SSIM-3D|$)", said[-1])]
    assert found[0] == pytest.approx(np.mean(psnr), abs=5e-3)
    assert found[1:] == pytest.approx([np.mean(ssim), np.mean(whole)], abs=1e-4)


def test_an_image_that_is_missing_is_named(run: Run, tmp_path: Path) -> None:
    sharp = write_faces(tmp_path / "sharp", slice(None, None, 160))
    first = min(sharp.iterdir())
    restored = tmp_path / "restored"
    restored.mkdir()
    first.rename(restored / first.name)
    with pytest.raises(SystemExit, match=f"{first.name}: is not an image in both folders"):
        run("measure_two_folders.py", restored, sharp)
