"""Spellings of options, where outputs are named, and causes of errors on demand."""

import argparse
from pathlib import Path

import pytest

from dfpg_cli.main import build_parser, main


def leaves(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """Return the parsers of all commands."""
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return [leaf for action in below for child in action.choices.values() for leaf in leaves(child)] or [parser]


def test_options_have_one_spelling_with_hyphens_and_causes_are_shown_everywhere() -> None:
    basicsrs = {"--auto_resume", "--force_yml", "--local_rank"}
    for parser in leaves(build_parser()):
        names = {name for action in parser._actions for name in action.option_strings}
        assert {name for name in names if "_" in name} <= basicsrs
        assert "--traceback" in names
        assert ("-o" in names) == ("--out" in names)


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("restore a.jpg --face_size 64", "face_size", 64),
        ("restore a.jpg --face-size=64", "face_size", 64),
        ("restore a.jpg --side_by_side", "side_by_side", True),
        ("restore a.jpg --output here", "out", "here"),
        ("report a --out here", "out", Path("here")),
        ("report a -o here", "out", Path("here")),
        ("train -opt a.yml --auto-resume", "auto_resume", True),
        ("train -opt a.yml --auto_resume", "auto_resume", True),
        ("train -opt a.yml --force-yml a=1 b=2", "force_yml", ["a=1", "b=2"]),
        ("train -opt a.yml --dry_run", "dry_run", True),
        ("prepare pairs out --faces f --kernels k --per_size 3", "per_size", 3),
        ("prepare kernels -o out", "folder", Path("out")),
        ("prepare kernels out", "folder", Path("out")),
        ("prepare kernels --seed 3 out", "folder", Path("out")),
        ("prepare lmdb source out", "target", Path("out")),
        ("prepare lmdb source --compress_level 3 out", "target", Path("out")),
        ("prepare lmdb source --out out", "target", Path("out")),
        ("restore a.jpg --box -10,20,150,200", "boxes", [(-10, 20, 150, 200)]),
        ("restore a.jpg --box=-10,-20,150,200 --box 1,2,3,4", "boxes", [(-10, -20, 150, 200), (1, 2, 3, 4)]),
        ("--traceback prepare lmdb source out", "traceback", True),
        ("prepare lmdb source out --traceback", "traceback", True),
    ],
)
def test_every_spelling_is_understood(line: str, key: str, value: object) -> None:
    assert getattr(build_parser().parse_args(line.split()), key) == value


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("prepare kernels", "the output is missing. Name it with -o/--out"),
        ("prepare kernels a -o b", "name the output once"),
        ("prepare kernels a b", "unrecognized arguments: b"),
        ("restore a.jpg --face_sise 64", "unrecognized arguments: --face_sise 64"),
        ("restore a.jpg --box 0,0,inf,inf", "argument --box: expected left < right and top < bottom"),
        ("demo --port 70000", "argument --port: expected a number from 1 to 65535, got 70000"),
    ],
)
def test_what_is_missing_or_unknown_is_an_error(line: str, text: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="2"):
        build_parser().parse_args(line.split())
    assert text in capsys.readouterr().err


def test_help_shows_one_spelling(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["prepare", "pairs", "--help"])
    text = capsys.readouterr().out
    assert "--per-size" in text
    assert "per_size" not in text
    assert "target_alone" not in text


@pytest.mark.parametrize("flags", [[], ["--traceback"]])
def test_the_cause_is_shown_on_demand(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "net.onnx").touch()
    assert main(["export", str(tmp_path / "net.onnx"), *flags]) == 2
    err = capsys.readouterr().err
    assert ("Traceback (most recent call last)" in err) == bool(flags)
    assert err.splitlines()[-1].startswith("basicsr: error: ")
