"""What tests of models share: completed options of a small one."""

from pathlib import Path

import pytest


@pytest.fixture
def options(demo_options: dict, tmp_path: Path) -> dict:
    """The demo's smallest options, completed, their folders made."""
    folders = {key: str(tmp_path / key) for key in ("models", "training_states", "visualization")}
    for folder in folders.values():
        Path(folder).mkdir()
    demo_options.update(num_gpu=0, dist=False, rank=0, is_train=True, path=folders)
    return demo_options
