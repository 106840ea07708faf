"""Reading weights and writing checkpoints."""

import errno
import fcntl
import hashlib
import os
import stat
from pathlib import Path
from types import ModuleType

import pytest
import torch
from kit import fail_at, identity

from dfpg_plugin.checks import UserError
from dfpg_plugin.files import UNFINISHED, _remove_unfinished, load_pytorch, save_whole, sha256_of, whole_file


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut short", b"\x80\x04K\x01."])
def test_what_is_not_a_pytorch_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.pth"):
        load_pytorch(tmp_path / "a.pth")


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


def test_a_file_is_on_the_disk_before_it_takes_its_name(
    tmp_path: Path, disk: list[tuple[str, tuple[int, int]]]
) -> None:
    with whole_file(tmp_path / "a") as file:
        file.write(b"content")
    assert disk == [("synced", identity(tmp_path / "a")), ("renamed", identity(tmp_path / "a"))]


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere/a.pth: can't be written"):
        save_whole({}, tmp_path / "nowhere" / "a.pth")


def test_a_full_disk_of_which_torchs_writer_only_says_that_it_failed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:668] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(UserError, match=r"a\.pth: can't be written \(\[enforce fail .* Make room"):
        save_whole({}, tmp_path / "a.pth")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("disk"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"before")
    expected = UserError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected), whole_file(path) as file:
        file.write(b"half")
        raise error
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.bin", b"before")]


@pytest.mark.parametrize("step", ["open", "fsync", "replace"])
def test_whichever_step_fails_the_file_keeps_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"before")
    fail_at(monkeypatch, step)
    with pytest.raises(UserError) as caught, whole_file(path) as file:
        file.write(b"after")
    assert str(caught.value).startswith(f"{path}: can't be written (No space left on device")
    assert "\n" not in str(caught.value)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.bin", b"before")]


@pytest.mark.parametrize(("owner", "step"), [(os, "unlink"), (fcntl, "flock")])
def test_a_file_is_written_where_nothing_can_be_removed_or_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: ModuleType, step: str
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(owner, step, refuse)
    with pytest.raises(UserError, match="can't be written"), whole_file(tmp_path / "a") as file:
        raise OSError(errno.ENOSPC, "No space left on device")  # which the refusal to remove the rest does not hide
    with whole_file(tmp_path / "a") as file:
        file.write(b"whole")
    assert (tmp_path / "a").read_bytes() == b"whole"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_file_has_the_mode_of_any_new_one(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with whole_file(tmp_path / "a"):
            (new,) = tmp_path.iterdir()
            assert stat.S_IMODE(new.stat().st_mode) == 0o666 & ~umask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~umask


def test_no_file_of_the_users_is_taken_for_a_temporary_one(tmp_path: Path) -> None:
    mine = ("a.png.tmp", ".a.tmp", ".a.part.png", ".a.dfpg-tmp", ".a.0123abcd.tmp", "a.0123abcd.dfpg-tmp")
    for name in mine:
        (tmp_path / name).write_text("mine")
    for _ in range(2):
        with whole_file(tmp_path / "a.png") as file:
            file.write(b"new")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a.png", *mine])
    assert {(tmp_path / name).read_text() for name in mine} == {"mine"}


def test_two_who_write_one_file_do_not_mix(tmp_path: Path) -> None:
    with whole_file(tmp_path / "a") as first:
        first.write(b"first")
        with whole_file(tmp_path / "a") as second:
            second.write(b"2nd")
        assert (tmp_path / "a").read_bytes() == b"2nd"
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"first")]


def test_a_name_that_another_process_took_meanwhile_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with whole_file(tmp_path / "a") as file:  # what was left in the folder has been looked for
        file.write(b"mine")
    tokens = iter(["0123abcd", "4567cdef"])
    monkeypatch.setattr("secrets.token_hex", lambda size: next(tokens))
    theirs = tmp_path / ".a.0123abcd.dfpg-tmp"
    theirs.write_bytes(b"theirs")
    with whole_file(tmp_path / "a") as file:
        file.write(b"mine")
    assert theirs.read_bytes() == b"theirs"
    assert (tmp_path / "a").read_bytes() == b"mine"


def test_what_a_killed_process_left_is_removed_and_what_somebody_still_writes_is_not(tmp_path: Path) -> None:
    left = tmp_path / ".a.0123abcd.dfpg-tmp.mp4"
    left.write_bytes(b"half")
    with whole_file(tmp_path / "a") as file:
        file.write(b"whole")
        assert not left.exists()
        _remove_unfinished.cache_clear()  # as in another process
        with whole_file(tmp_path / "b"):
            assert len([path for path in tmp_path.iterdir() if UNFINISHED.fullmatch(path.name)]) == 2
    assert (tmp_path / "a").read_bytes() == b"whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("name", ["x" * 255, "ä" * 127, "." * 5 + "x", "a\nb"])
def test_any_name_that_the_disk_takes_can_be_written(tmp_path: Path, name: str) -> None:
    with whole_file(tmp_path / name) as file:
        file.write(b"whole")
        assert all(UNFINISHED.fullmatch(path.name) for path in tmp_path.iterdir())
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("size", [0, 5, 2**20, 3 * 2**20 + 1])
def test_sha256_of_files_of_any_size(tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "a").write_bytes(content[:size])
    assert sha256_of(tmp_path / "a") == hashlib.sha256(content[:size]).hexdigest()
