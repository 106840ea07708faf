"""docs/extending.md: its files and commands run as they stand there."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from kit import ROOT

GUIDE = ROOT / "docs" / "extending.md"
SHORTER = ["train:total_iter=4", "val:val_freq=4", "logger:save_checkpoint_freq=4", "logger:print_freq=1", "num_gpu=0"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_guide_runs(basicsr: Callable, tmp_path: Path) -> None:
    written = []
    for block in [*blocks("python"), *blocks("yaml")]:
        if name := re.match(r"# (\S+\.(?:py|yml))\n", block):
            (tmp_path / name[1]).write_text(block, encoding="utf-8")
            written.append(name[1])
    assert written == ["my_parts.py", "my_training.yml"]
    (commands,) = blocks("bash")
    environment = {"PYTHONPATH": f"{ROOT}:."}
    for line in commands.strip().splitlines():
        words = shlex.split(line, comments=True)
        _, *arguments = words[1:] if words[0] == "PYTHONPATH=." else words
        if arguments[0] == "train" and "--dry-run" not in arguments:
            arguments += ["--force_yml", *SHORTER]
        done = basicsr(*arguments, env=environment)
        assert done.returncode == 0, done.stderr
    log = next((tmp_path / "experiments" / "my_training").glob("*.log")).read_text()
    assert "l_g_prior" in log and "cos_p3" in log and "# psnr" in log
    assert (tmp_path / "my.onnx").is_file()
