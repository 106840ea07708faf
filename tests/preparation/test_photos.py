"""Training faces out of photographs: where they may go."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from dfpg_cli.main import main


@pytest.mark.parametrize("target", [".", "faces", "anna/faces"])
def test_faces_are_not_written_among_the_photographs(
    tmp_path: Path, target: str, capsys: pytest.CaptureFixture
) -> None:
    """Else they would be photographs, too, when the command is run again."""
    photos = tmp_path / "photos"
    photos.mkdir()
    cv2.imwrite(str(photos / "a.png"), np.zeros((8, 9, 3), np.uint8))
    assert main(["prepare", "faces", "-o", str(photos / target), "--photos", str(photos)]) == 2
    said = capsys.readouterr().err
    assert f"{photos / target}: lies in {photos}" in said
    assert [path.name for path in photos.iterdir()] == ["a.png"]
