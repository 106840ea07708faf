"""Read an option YAML once, without executing anything: its text, its values, and the line of each key."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from dfpg_plugin.checks import UserError, check_file, close_names

Options = dict
MOST_VALUES = 100_000


class _Loader(yaml.SafeLoader):
    """A safe loader for which ``1e-4`` is a number, as in YAML 1.2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(text: str, source: str) -> object:
    """Parse YAML; raise UserError, naming ``source`` and the line, for what is not plain data."""
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
    lines: Mapping[str, int]  # of every key, by key paths such as train:optim_g:lr


def open_option_file(path: str) -> OptionFile:
    """Read an option YAML.

    Raises UserError where the file is missing or is no mapping, for a key that stands twice in a section, of which YAML
    would silently take the last, and for aliases that repeat more than :data:`MOST_VALUES` values, or themselves.
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
        own: set[str] = set()
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            name, line = f"{prefix}{key.value}", key.start_mark.line + 1
            if name in own and key.value != "<<":
                raise UserError(
                    f"{file}, line {line}: {name} stands in line {lines[name]} already. Remove one of them."
                )
            own.add(name)
            lines[name] = line
            pending.append((f"{name}:", value))
    return lines


def with_line(problem: str, lines: Mapping[str, int]) -> str:
    """Put the line of the deepest key of the file before a problem that starts with a key path."""
    parts = problem.split(": ")[0].split(":")
    for length in range(len(parts), 0, -1):
        if (line := lines.get(":".join(parts[:length]))) is not None:
            return f"line {line}: {problem}"
    return problem


def _expanded_size(node: yaml.Node, sizes: dict[int, int], file: str) -> int:
    """Return how many values a node stands for; raise UserError for one that holds itself."""
    if id(node) in sizes:
        if sizes[id(node)] == 0:
            raise UserError(
                f"{file}, line {node.start_mark.line + 1}: an alias holds itself. Write options without it."
            )
        return sizes[id(node)]
    sizes[id(node)] = 0  # not known yet
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    sizes[id(node)] = 1 + sum(_expanded_size(child, sizes, file) for child in children)
    return sizes[id(node)]


def force(opt: Options, entries: Sequence[str]) -> None:
    """Apply ``--force_yml`` entries such as ``train:optim_g:lr=1e-4`` to ``opt``; values are read as YAML.

    Raises UserError for an entry without ``=``, and for a section that is not there.
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
