"""What ``mkdocs build`` does for the documentation besides Markdown: the commands' page, and files outside of docs/.

``docs/commands.md`` gets every command and flag from the commands' own parsers. Pages link to files of the repository,
such as ``../options/train_dfpg_orl.yml``. The site has copies of these files below ``source/``. A link to a folder
becomes its name.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from dfpg_cli.main import build_parser

ROOT = Path(__file__).parents[1]
PLACE = re.compile(r"<!-- commands: .*? -->")
OF_ALL = ("help", "traceback")  # every command has these; the page says so once
OUTSIDE = re.compile(r"\[([^\]]*)\]\(\.\./([^)#]+)\)")


def on_files(files: Files, config: Any) -> Files:  # noqa: ANN401 mkdocs' own
    """Add the files of the repository that pages link to."""
    for page in list(files.documentation_pages()):
        for _, name in OUTSIDE.findall(page.content_string):
            if (ROOT / name).is_file() and files.get_file_from_path(f"source/{name}") is None:
                files.append(File.generated(config, f"source/{name}", abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:  # noqa: ANN401 mkdocs' own
    """Put the commands in their place, and turn links out of docs/ to the copies."""
    if PLACE.search(markdown):
        markdown = PLACE.sub(lambda _: describe_commands(), markdown)
    return OUTSIDE.sub(lambda link: _inside(link[1], link[2]), markdown)


def on_page_content(html: str, **_: Any) -> str:  # noqa: ANN401 mkdocs' own
    """Take Sphinx' roles, such as ``:func:``, from the docstrings' names."""
    return re.sub(r":\w+:(?=<code>)", "", html)


def _inside(text: str, name: str) -> str:
    return f"[{text}](source/{name})" if (ROOT / name).is_file() else text


def describe_commands() -> str:
    """Return a section of Markdown for each command: its usage and a table of its arguments."""
    return "\n".join(line for parser in _leaves(build_parser()) for line in _section(parser))


def _leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield parser
    for group in groups:
        for child in group.choices.values():
            yield from _leaves(child)


def _section(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield from (f"## `{parser.prog}`", "", _cell(parser.description or ""), "")
    yield from ("| argument | meaning |", "|---|---|")
    for action in parser._actions:
        if action.help is not argparse.SUPPRESS and action.dest not in OF_ALL:
            meaning = _cell((action.help or "") % {"default": action.default})
            yield f"| {_name(action)} | {meaning} |"
    yield ""


def _name(action: argparse.Action) -> str:
    value = action.metavar or ""
    if action.metavar is None and action.nargs != 0:
        value = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()
    words = [", ".join(action.option_strings), *([value] if isinstance(value, str) else value)]
    return f"`{' '.join(filter(None, words))}`"


def _cell(text: str) -> str:
    """Return a text as a table's cell has it: one line, docstrings' double backquotes single, nothing taken as HTML."""
    line = " ".join(text.split()).replace("``", "`")
    return re.sub(r"(`[^`]*`)|([<|])", lambda found: found[1] or f"&#{ord(found[2])};", line)
