"""An option that has no effect beside another is refused: status 2, and one line that names both."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from dfpg_cli.interruption import TerminatedError, sigterm_interrupts
from dfpg_cli.main import main
from dfpg_plugin.checks import UserError
from dfpg_plugin.restoration.aligning import FaceCutter
from dfpg_plugin.restoration.detectors import load_detector
from dfpg_plugin.restoration.settings import Settings

ALIGNED = "restore nowhere.png --mode aligned"
BOX = "restore nowhere.png --box 1,2,3,4"
COMPARE = "report --compare a.json b.json"
PHOTOS = "prepare faces out --photos nowhere"
IDLE = [
    (ALIGNED, "--box 1,2,3,4", "--mode aligned"), (ALIGNED, "--detector centerface", "--mode aligned"),
    (ALIGNED, "--detector-weights w", "--mode aligned"), (ALIGNED, "--threshold 0", "--mode aligned"),
    (ALIGNED, "--passes 2", "--mode aligned"), (ALIGNED, "--face-size 128", "--mode aligned"),
    (ALIGNED, "--batch-size 8", "--mode aligned"),
    (BOX, "--detector dlib", "--box"), (BOX, "--detector-weights w", "--box"), (BOX, "--threshold 0.5", "--box"),
    (BOX, "--passes 1", "--box"),
    ("restore nowhere.png", "--detector-weights w", "--detector centerface"),
    ("restore nowhere.png --detector dlib", "--detector-weights w", "--detector dlib"),
    (COMPARE, "--out o", "--compare"), (COMPARE, "--title t", "--compare"), (COMPARE, "--resamples 9", "--compare"),
    (COMPARE, "--seed 0", "--compare"), (COMPARE, "--pictures best", "--compare"),
    (COMPARE, "--num-pictures 6", "--compare"), (COMPARE, "--picture-metric psnr", "--compare"),
    ("prepare faces out --split test", "--format png", "--split"),
    ("prepare faces out --split test", "--min-score 0", "--split"),
    ("prepare faces out --lfw nowhere", "--detector dlib", "--lfw"),
    ("prepare faces out --lfw nowhere", "--min-side 9", "--lfw"),
    (PHOTOS, "--detector-weights w", "--detector dlib"),
    (f"{PHOTOS} --detector dlib", "--detector-weights w", "--detector dlib"),
    ("test -opt nowhere.yml", "--auto_resume", "a test"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "option", "other"), IDLE)
def test_an_option_without_effect_is_refused_before_anything_is_read(
    command: str,
    option: str,
    other: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command.split(), *option.split()]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"basicsr: error: {option.split()[0]}: has no effect ")
    assert other in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


BOXES = [(1.0, 2.0, 3.0, 4.0)]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mode": "aligned", "boxes": BOXES}, "boxes: has no effect with mode: aligned"),
        ({"mode": "aligned", "threshold": 0.5}, "threshold: has no effect with mode: aligned"),
        ({"mode": "aligned", "detector": "dlib"}, "detector: has no effect with mode: aligned"),
        ({"mode": "aligned", "face_size": 64}, "face_size: has no effect with mode: aligned"),
        ({"boxes": BOXES, "passes": 1}, "passes: has no effect with boxes"),
        ({"boxes": BOXES, "detector": "dlib"}, "detector: has no effect with boxes"),
        ({"detector_weights": "w"}, "detector_weights: has no effect with detector: centerface"),
    ],
)
def test_settings_without_effect_are_refused_in_python_too(settings: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Settings(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"boxes": BOXES, "face_size": 64, "batch_size": 2}, {"mode": "aligned", "boxes": [], "strength": 0.5},
        {"detector": "facexlib", "detector_weights": "w", "threshold": 0.5, "passes": 1},
    ],
)  # fmt: skip
def test_settings_that_go_together_are_taken(settings: dict) -> None:
    expected = {name: tuple(value) if name == "boxes" else value for name, value in settings.items()}
    assert vars(Settings(**settings)).items() >= expected.items()


@pytest.mark.parametrize(
    "make", [lambda: load_detector("dlib", "w"), lambda: FaceCutter(160, 128, "dlib", "w")], ids=["loaded", "cutter"]
)
def test_weights_of_a_detector_that_has_none_are_refused(make: Callable) -> None:
    with pytest.raises(UserError, match="--detector-weights: has no effect with --detector dlib"):
        make()


def test_a_repeated_sigterm_is_one_wish_and_the_earlier_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    ended = False
    with pytest.raises(TerminatedError), sigterm_interrupts():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            ended = True
    assert ended
    assert signal.getsignal(signal.SIGTERM) is before
