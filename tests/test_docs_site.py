"""The site of the documentation: built strictly, complete, and with nothing from outside."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kit import ROOT

FETCHED = re.compile(r"<(?:script|img|iframe|source|link rel=\"(?:stylesheet|preconnect)\")[^>]*https?://[^>]*>")


@pytest.mark.slow
def test_the_site_builds_strictly_and_fetches_nothing_from_outside(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {page.name: page.read_text(encoding="utf-8") for page in (tmp_path / "site").glob("*.html")}
    assert {name: found for name, text in pages.items() if (found := FETCHED.findall(text))} == {}
    for flag in ("--skip-existing", "--auto_resume", "--kernel-range", "--json-schema", "the run debug_&#60;name&gt;"):
        assert flag in pages["commands.html"]
    assert "Restores faces with any registered network" in pages["python_reference.html"]
    assert (tmp_path / "site/source/options/train_dfpg_lfw.yml").read_bytes() == (
        ROOT / "options/train_dfpg_lfw.yml"
    ).read_bytes()


def test_every_page_has_a_place_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1]
    named = re.findall(r": (\w+\.md)$", navigation, re.MULTILINE)
    assert sorted(named) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("file", ["CITATION.cff", ".pre-commit-config.yaml", *(
    str(path.relative_to(ROOT)) for path in sorted((ROOT / ".github").rglob("*.yml"))
)])  # fmt: skip
def test_every_file_of_the_release_is_yaml(file: str) -> None:
    assert isinstance(yaml.safe_load((ROOT / file).read_text(encoding="utf-8")), dict)
