"""The README's installations work in a fresh environment: each line brings what builds the package."""

import ast
import re

from kit import ROOT

BUILD = {"setuptools", "wheel", "cython", "torch", "torchvision"}  # what BasicSR's setup.py imports, and ours


def test_each_installation_without_isolation_installs_what_builds_it_first() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if "pip install --no-build-isolation" in line]
    assert len(lines) >= 5
    for line in lines:
        before = line.split("--no-build-isolation")[0]
        found = re.findall(r"pip install ([^&]+?) && ", before)
        assert found, line
        assert set(found[-1].split()) == BUILD, line


def test_each_extra_of_the_readme_is_one_of_the_installation() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    known = set(re.findall(r'^        "(\w+)": ', setup, re.MULTILINE))
    named = {extra for extras in re.findall(r"'\.\[([\w,]+)\]'", text) for extra in extras.split(",")}
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
