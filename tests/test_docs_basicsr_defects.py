"""docs/basicsr_defects.md: what it names is there, in this package and in BasicSR, and what is cited of it as well."""

import re
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import pytest
from kit import ROOT

from dfpg_plugin import compat

DOC = ROOT / "docs" / "basicsr_defects.md"
TEXT = DOC.read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### (.+)\n((?:(?!^##).*\n)+)", TEXT, re.MULTILINE))
FOLDERS = ("benchmarks", "dfpg_cli", "dfpg_plugin", "docs", "options", "scripts", "tests")
KINDS = (".json", ".md", ".py", ".yml")
PARTS = (r"In (?:BasicSR|GFPGAN)", "Mended by", "Under `--stock`", "Until")
PLACES = re.findall(r"((?:`[\w.]+`(?:\s+and\s+)?)+)[^`]{0,20}\(`(dfpg_(?:plugin|cli)/[\w/]+\.py)`\)", TEXT)


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives the headings of a Markdown text."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_anchor_that_is_cited_is_there() -> None:
    files = [*ROOT.glob("*.md"), *chain.from_iterable((ROOT / folder).rglob("*") for folder in FOLDERS)]
    cited = {
        (path.relative_to(ROOT), anchor)
        for path in files
        if path.suffix in KINDS
        for anchor in re.findall(r"basicsr_defects\.md#([\w-]+)", path.read_text(encoding="utf-8"))
    }
    cited |= {(DOC.relative_to(ROOT), anchor) for anchor in re.findall(r"\]\(#([\w-]+)\)", TEXT)}
    assert Path("dfpg_plugin/runs/output.py") in {path for path, _ in cited}
    assert {(path, anchor) for path, anchor in cited if anchor not in anchors(TEXT)} == set()


def test_the_patches_are_those_of_compat() -> None:
    named = re.findall(r"compat:\s+`(\w+)`", TEXT)
    assert sorted(named) == sorted(patch.name for patch in compat.PATCHES)


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_section_says_where_how_under_which_loop_and_until_when(heading: str) -> None:
    labels = re.findall(r"^- \*\*(.+?)\*\*: ", SECTIONS[heading], re.MULTILINE)
    assert re.fullmatch(" ".join(PARTS), " ".join(label for label in labels if label != "Versions"))


@pytest.mark.parametrize(("names", "file"), PLACES)
def test_every_mend_is_where_it_is_said_to_be(names: str, file: str) -> None:
    code = (ROOT / file).read_text(encoding="utf-8")
    for name in re.findall(r"`([\w.]+)`", names):
        for part in name.split("."):
            assert re.search(rf"^ *(?:class|def) {part}\b", code, re.MULTILINE), part


def test_every_file_of_the_package_that_is_named_is_there() -> None:
    files = set(re.findall(r"`(dfpg_(?:plugin|cli)/[\w/]+\.py)`", TEXT))
    assert len(PLACES) > 40
    assert {file for file in files if not (ROOT / file).is_file()} == set()


def test_every_line_of_basicsr_and_gfpgan_that_is_named_holds_something() -> None:
    cited = re.findall(r"`(basicsr|gfpgan)/([\w/]+\.py):(\d+)`", TEXT)
    assert len(cited) > 60
    for package, file, number in cited:
        (folder,) = find_spec(package).submodule_search_locations
        assert (Path(folder) / file).read_text(encoding="utf-8").splitlines()[int(number) - 1].strip(), (file, number)
