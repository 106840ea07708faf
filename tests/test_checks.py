"""The checks say what was wrong and what is near."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from dfpg_plugin import checks


def test_close_names_look_past_case_and_typing() -> None:
    assert checks.close_names("dfpgnet", ["DFPGNet", "RRDBNet"]) == " Did you mean DFPGNet?"
    assert checks.close_names("zzz", ["DFPGNet"]) == ""


def test_choices_keys_and_numbers() -> None:
    checks.check_choice("k", None, (None, "a"))
    with pytest.raises(checks.UserError, match="k: 'b' is not one of None, a"):
        checks.check_choice("k", "b", (None, "a"))
    checks.check_keys("k", ["a"], ["a", "b"])
    with pytest.raises(
        checks.UserError, match=r"k: unknown key 'widht'. Did you mean width. Known keys: height, width"
    ):
        checks.check_keys("k", ["widht"], ["width", "height"])
    checks.check_positive("k", 0.5)
    for wrong in (0, -1, "1", None, True, float("nan")):
        with pytest.raises(checks.UserError, match="k: expected a number above 0"):
            checks.check_positive("k", wrong)


def test_files_and_folders(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("x")
    assert checks.check_file("k", str(file)) == file
    assert checks.check_folder("k", str(tmp_path)) == tmp_path
    with pytest.raises(checks.UserError, match="is a folder, not a file"):
        checks.check_file("k", tmp_path)
    with pytest.raises(checks.UserError, match="is a file, not a folder"):
        checks.check_folder("k", file)
    with pytest.raises(checks.UserError, match="working directory"):
        checks.check_file("k", tmp_path / "none")


@dataclass
class Options:
    """Fields of every kind."""

    count: int = 1
    share: float = 0.0
    name: str | None = None
    sizes: tuple[int, ...] = ()
    pair: tuple[int, int] | None = None
    flag: bool = False


def test_a_folder_that_cant_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(checks.UserError, match=r"k: can't make the folder .*f/g \(Not a directory\)"):
        checks.make_folder("k", tmp_path / "f" / "g")
