"""The script that trains the stand-in prior, shrunk to seconds; its measure against another library's."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from kit import ROOT
from safetensors import safe_open
from scipy.stats import mannwhitneyu

from dfpg_plugin.archs.vggface_arch import VGGFaceFeatureExtractor
from dfpg_plugin.checks import UserError


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_standin_prior", ROOT / "scripts" / "train_standin_prior.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """What `prepare faces --lfw` writes: three people for training, one of them with one picture only."""
    counts = {"train/a": 3, "train/b": 2, "train/alone": 1, "val/c": 2, "val/d": 2, "test/e": 2, "test/f": 1}
    rng = np.random.default_rng(0)
    for person, count in counts.items():
        (tmp_path / "LFW" / person).mkdir(parents=True)
        for n in range(count):
            cv2.imwrite(str(tmp_path / "LFW" / person / f"{n}.png"), rng.integers(0, 256, (160, 160, 3), np.uint8))
    return tmp_path / "LFW"


def test_a_few_iterations_write_a_prior_that_the_package_loads(
    script: ModuleType, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "prior.safetensors"
    script.main([str(faces), "--out", str(out), "--iterations", "2", "--batch", "2"])
    printed = capsys.readouterr().out
    assert "5 pictures of 2 people, on " in printed
    assert "val: " in printed
    assert "(1 pairs of one person, 2 of two)" in printed  # of the test's three pictures
    extractor = VGGFaceFeatureExtractor(weights=str(out))
    assert [f.shape[1] for f in extractor(torch.rand(1, 3, 32, 32))] == [64, 128, 256]
    with safe_open(out, "pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118
        metadata = file.metadata()
    assert metadata["input"] == "pm1"
    assert json.loads(metadata["held_out"])["test"]["num_same"] == 1
    assert "iterations 2, batch 2" in metadata["training"]


def test_only_people_with_enough_pictures_and_so_many_of_each_are_read(script: ModuleType, faces: Path) -> None:
    images, people = script.load_faces(faces / "train", 2, 2)
    assert (images.shape, images.dtype) == ((4, 3, 160, 160), torch.uint8)
    assert people.tolist() == [0, 0, 1, 1]
    first = cv2.imread(str(faces / "train" / "a" / "0.png"))
    np.testing.assert_array_equal(images[0].permute(1, 2, 0).numpy(), first[..., ::-1])  # RGB
    with pytest.raises(UserError, match="nobody has 9 pictures"):
        script.load_faces(faces / "train", 9, 14)


def test_verification_agrees_with_scipy_and_with_every_threshold_tried(script: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    people = torch.arange(40) // 4
    centres = torch.randn(10, 8, generator=generator)
    vectors = torch.nn.functional.normalize(centres[people] + torch.randn(40, 8, generator=generator))
    found = script.verify(vectors, people)
    first, second = np.triu_indices(40, 1)
    scores = (vectors.double() @ vectors.double().T).numpy()[first, second]
    same = (people[first] == people[second]).numpy()
    shares = [((scores[same] >= t).mean() + (scores[~same] < t).mean()) / 2 for t in scores]
    assert (found.num_same, found.num_different) == (60, 720)
    assert found.auc == pytest.approx(mannwhitneyu(scores[same], scores[~same]).statistic / (60 * 720), abs=1e-4)
    assert found.accuracy == pytest.approx(max(shares), abs=1e-3)
    assert 0.6 < found.auc < 0.999


def test_equal_scores_count_half_and_perfect_ones_fully(script: ModuleType) -> None:
    people = torch.tensor([0, 0, 1, 1])
    assert script.verify(torch.ones(4, 1), people) == (2, 4, 0.5, 0.5)
    apart = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    assert script.verify(apart, people) == (2, 4, 1.0, 1.0)


def test_without_chance_the_augmentation_is_the_central_square(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8)
    for name, value in {"DEGREES": 0.0, "WINDOWS": (0.8, 0.8), "SHIFT": 0.0, "JITTER": 0.0}.items():
        monkeypatch.setattr(script, name, value)
    expected = script.to_input(images)
    for given, made in zip(expected, script.augment(images), strict=True):
        assert min((made - given).abs().max(), (made - given.flip(2)).abs().max()) < 1e-3  # mirrored or not


def test_faces_are_augmented_each_in_its_own_way(script: ModuleType) -> None:
    made = script.augment(torch.randint(0, 256, (1, 3, 160, 160), dtype=torch.uint8).expand(4, -1, -1, -1))
    assert made.shape == (4, 3, 128, 128)
    assert made.abs().max() <= 1
    assert all((made[0] - other).abs().mean() > 0.01 for other in made[1:])


def test_the_margin_raises_the_loss(script: ModuleType) -> None:
    torch.manual_seed(0)
    loss_of = script.MarginSoftmax(3)
    vectors, people = torch.nn.functional.normalize(torch.randn(5, 256)), torch.tensor([0, 1, 2, 0, 1])
    cosines = vectors @ torch.nn.functional.normalize(loss_of.centres).T
    plain = torch.nn.functional.cross_entropy(24 * cosines, people)
    assert loss_of(vectors, people, 0.0).item() == pytest.approx(plain.item(), rel=1e-5)
    assert loss_of(vectors, people, 0.1).item() > plain.item()
