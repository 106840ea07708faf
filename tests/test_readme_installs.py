"""The installations of README and docs work in a fresh environment: each line brings what builds the package."""

import ast
import re

from kit import ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
BUILD = {"setuptools", "wheel", "cython", "torch", "torchvision"}  # what BasicSR's setup.py imports, and ours


def test_each_installation_without_isolation_installs_what_builds_it_first() -> None:
    blocks = re.findall(r"^```bash\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if "pip install --no-build-isolation" in line]
    assert len(lines) >= 8
    for line in lines:
        before = line.split("--no-build-isolation")[0]
        found = re.findall(r"pip install ([^&]+?) && ", before)
        assert found, line
        assert set(found[-1].split()) == BUILD, line


def test_each_extra_that_is_named_is_one_of_the_installation() -> None:
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    known = set(re.findall(r'^        "(\w+)": ', setup, re.MULTILINE))
    named = {extra for extras in re.findall(r"'\.\[([\w,]+)\]'", TEXT) for extra in extras.split(",")}
    assert named
    assert named <= known


def test_an_installation_has_every_file_of_the_package() -> None:
    package = ROOT / "dfpg_plugin"
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    keywords = {node.arg: node.value for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    patterns = ast.literal_eval(keywords["package_data"])["dfpg_plugin"]
    installed = {path for pattern in patterns for path in package.glob(pattern)}
    files = {path for path in package.rglob("*") if path.is_file() and path.parent.name != "__pycache__"}
    assert {path for path in files if path.suffix != ".py"} == installed
