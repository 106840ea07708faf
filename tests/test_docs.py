"""README and docs: what they link to is there, their code parses, and their commands are commands."""

import argparse
import hashlib
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit import ROOT

from dfpg_cli.main import build_parser

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
FOLDERS = ("options", "benchmarks", "scripts", "examples")
SEPARATORS = {"&&", "||", ";", "|"}
README_LINES = 150


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(file: Path) -> set[str]:
    """Return the anchors that GitHub and the site give the headings of a Markdown file."""
    headings = re.findall(r"^#+ (.+)$", without_code(file.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks(language: str) -> list:
    pattern = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    found = [(page, block) for page in PAGES for block in pattern.findall(page.read_text(encoding="utf-8"))]
    return [pytest.param(block, id=f"{page.name}-{number}") for number, (page, block) in enumerate(found)]


def commands(block: str) -> Iterator[list[str]]:
    """Yield the words of each simple command of a bash block."""
    for line in block.replace("\\\n", " ").splitlines():
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), ";"]:
            if word not in SEPARATORS:
                words.append(word)
            elif words:
                yield words
                words = []


def arguments(words: list[str]) -> list[str] | None:
    """Return what a command gives to ``basicsr``; None for another command."""
    for number, word in enumerate(words):
        if word.rpartition("/")[2] == "basicsr" or word == "dfpg_cli.main":
            return words[number + 1 :]
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for name, anchor in LINK.findall(without_code(page.read_text(encoding="utf-8"))):
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), name
        assert not anchor or anchor in anchors(target), f"{name}#{anchor}"


@pytest.mark.parametrize("block", blocks("python"))
def test_every_block_of_python_compiles(block: str) -> None:
    compile(block, "block", "exec")


@pytest.mark.parametrize("block", blocks("bash"))
def test_every_block_of_bash_parses_and_names_files_that_are_there(block: str) -> None:
    done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for word in shlex.split(block, comments=True):
        if word.split("/")[0] in FOLDERS and "{" not in word:
            assert list(ROOT.glob(word)), word


@pytest.mark.parametrize("block", blocks("bash"))
def test_every_line_of_basicsr_is_one_that_the_command_takes(block: str, capsys: pytest.CaptureFixture) -> None:
    for words in commands(block):
        given = arguments(words)
        if given is not None:
            try:
                assert isinstance(build_parser().parse_args(given), argparse.Namespace)
            except SystemExit:
                pytest.fail(f"{shlex.join(words)}: {capsys.readouterr().err}")


def test_the_readme_fits_on_a_screen_and_names_the_weights_as_they_are() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n") <= README_LINES
    weights = {path.name: path.read_bytes() for path in (ROOT / "dfpg_plugin/weights").glob("*.safetensors")}
    named = dict(re.findall(r"^\| `([\w.]+\.safetensors)`.*?`([0-9a-f]{64})`", text, re.MULTILINE))
    assert named == {name: hashlib.sha256(data).hexdigest() for name, data in weights.items()}


def test_the_readmes_figures_are_those_of_the_results() -> None:
    readme, results = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/results.md"))
    table = readme.split("## How good is it")[1].split("## Install")[0]
    figures = re.findall(r"(\d+\.\d+)\D*? (\[[\d., ]+\])", table.replace("*", ""))
    assert len(figures) == 10
    known = {(value, interval) for value, interval in re.findall(r"(\d+\.\d+)(?: %)? (\[[\d., ]+\])", results)}
    assert set(figures) <= known


def test_every_registered_name_is_in_the_readme_and_on_the_first_page() -> None:
    from test_surface import registered

    for page in ("README.md", "docs/index.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for kind in ("ARCH", "LOSS", "MODEL", "DATASET", "METRIC"):
            assert {name for name in registered(kind) if f"`{name}`" not in text} == set(), page


def test_the_newest_dated_version_of_the_changelog_is_the_packages() -> None:
    import dfpg_plugin

    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert re.fullmatch(rf"\[{re.escape(dfpg_plugin.__version__)}\] - \d{{4}}-\d\d-\d\d", headings[1])
