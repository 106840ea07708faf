"""Read an option YAML once: its text, its values, and the line of each key. Nothing in the file is executed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from dfpg_plugin.checks import UserError, check_file, close_names

Options = dict
MOST_VALUES = 100_000  # keys and values in a file, with its aliases written out


class _Loader(yaml.SafeLoader):
    """A safe loader that reads ``1e-4`` as a number, as YAML 1.2 does."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(text: str, source: str) -> object:
    """Return the values of a YAML text. Raises UserError, naming ``source`` and the line, unless it is plain data."""
    try:
        return yaml.load(text, _Loader)
    except RecursionError as error:
        raise UserError(f"{source}: nested too deeply.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).split("\n")[0]
        raise UserError(f"{source}{where}: {problem}.") from error


@dataclass(frozen=True)
class OptionFile:
    """An option YAML as it was read."""

    path: Path
    text: str
    values: Options
    lines: Mapping[str, int]  # the line of each key, such as {"train:optim_g:lr": 85}


def open_option_file(path: str) -> OptionFile:
    """Read an option YAML.

    Raises UserError in these cases:

    - The file is missing, is no text in UTF-8, or holds no mapping of plain data.
    - A key stands twice in a section. YAML would silently take the last value.
    - With its aliases written out, the file holds more than :data:`MOST_VALUES` keys and values.
    - An alias contains itself.
    """
    file = check_file("-opt", path)
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"-opt: {file} is not a text file in UTF-8.") from error
    values = read_yaml(text, str(file))
    if not isinstance(values, dict):
        raise UserError(f"{file}: expected options as `key: value`, got {type(values).__name__}.")
    return OptionFile(file, text, values, _key_lines(text, str(file)))


def read_option_file(path: str) -> Options:
    """Return the values of an option YAML. Raises UserError as :func:`open_option_file`."""
    return open_option_file(path).values


def _key_lines(text: str, file: str) -> dict[str, int]:
    root = yaml.compose(text, _Loader)
    if root is None:
        return {}
    if _expanded_size(root, {}, file) > MOST_VALUES:
        raise UserError(f"{file}: its aliases repeat more than {MOST_VALUES} values. Write options without them.")
    lines: dict[str, int] = {}
    pending: list[tuple[str, yaml.Node]] = [("", root)]
    while pending:
        prefix, node = pending.pop()
        seen: set[str] = set()
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            name, line = f"{prefix}{key.value}", key.start_mark.line + 1
            if name in seen and key.value != "<<":  # "<<", which merges mappings, may stand twice
                raise UserError(
                    f"{file}, line {line}: {name} stands in line {lines[name]} already. Remove one of them."
                )
            seen.add(name)
            lines[name] = line
            pending.append((f"{name}:", value))
    return lines


def key_of(problem: str) -> str:
    """Return the key path at the start of a problem: ``train:optim_g:lr`` of ``train:optim_g:lr: is missing.``."""
    return problem.split(": ")[0]


def with_line(problem: str, lines: Mapping[str, int]) -> str:
    """Return a problem with the line of its key before it: ``line 85: train:optim_g:lr: is missing.``.

    If the file lacks the key, the line is that of the deepest section above the key. Without any, none is added.
    """
    parts = key_of(problem).split(":")
    for length in range(len(parts), 0, -1):
        if (line := lines.get(":".join(parts[:length]))) is not None:
            return f"line {line}: {problem}"
    return problem


def _expanded_size(node: yaml.Node, sizes: dict[int, int], file: str) -> int:
    """Return how many keys and values a node stands for, with its aliases written out.

    ``sizes``: the numbers for the nodes met so far, by id; 0 stands for a node that is still being counted. Raises
    UserError for a node that contains itself.
    """
    if id(node) in sizes:
        if sizes[id(node)] == 0:
            raise UserError(
                f"{file}, line {node.start_mark.line + 1}: an alias contains itself. Write options without it."
            )
        return sizes[id(node)]
    sizes[id(node)] = 0
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    sizes[id(node)] = 1 + sum(_expanded_size(child, sizes, file) for child in children)
    return sizes[id(node)]


def force(opt: Options, entries: Sequence[str]) -> None:
    """Write ``--force_yml`` entries such as ``train:optim_g:lr=1e-4`` into ``opt``. Values are read as YAML.

    Raises UserError for an entry that is not ``key:subkey=value``, and for a section that ``opt`` lacks.
    """
    for entry in entries:
        keys, equals, value = entry.partition("=")
        parts = [part.strip() for part in keys.split(":")]
        if not equals or not all(re.fullmatch(r"[\w.-]+", part) for part in parts):
            raise UserError(f"--force_yml: expected key:subkey=value, got {entry!r}.")
        section = opt
        for part in parts[:-1]:
            if not isinstance(section.get(part), dict):
                raise UserError(f"--force_yml {entry}: there is no section {part!r}.{close_names(part, section)}")
            section = section[part]
        section[parts[-1]] = read_yaml(value, f"--force_yml {entry}")
