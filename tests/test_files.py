"""Reading weights and writing checkpoints."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dfpg_plugin.checks import UserError
from dfpg_plugin.files import load_pytorch, read_tensors, save_whole


def test_safetensors_are_read_with_their_metadata(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors", {"input": "pm1"})
    tensors, metadata = read_tensors(tmp_path / "a.safetensors")
    assert torch.equal(tensors["a"], torch.ones(2))
    assert metadata == {"input": "pm1"}


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut short", b"\x80\x04K\x01."])
def test_what_is_not_a_weights_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        read_tensors(tmp_path / name)


def test_errors_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"text")
    with pytest.raises(UserError) as caught:
        load_pytorch(tmp_path / "a.pth")
    assert "\n" not in str(caught.value)


def test_saving_replaces_the_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    for value in (1, 2):
        save_whole({"x": value}, path)
        assert load_pytorch(path) == {"x": value}
    assert [p.name for p in tmp_path.iterdir()] == ["a.pth"]


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere/a.pth: can't be written"):
        save_whole({}, tmp_path / "nowhere" / "a.pth")
