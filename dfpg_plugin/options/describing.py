"""Describe every key of an option file with its type, default and meaning. ``basicsr options`` prints the result."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from dfpg_plugin.options import schema
from dfpg_plugin.options.section import Expected, Section, inner_section, is_by_name, readers_of

NEEDED = "needed"  # stands for the default of a key that has to be given


@dataclass(frozen=True)
class KeyDescription:
    """A key of an option file."""

    name: str  # such as optim_*
    expected: str  # such as "a whole number from 1"
    default: str  # as in YAML; "needed" if the key has to be given; empty if the default is no value, [] or a section
    meaning: str


@dataclass(frozen=True)
class SectionDescription:
    """A section of an option file."""

    path: str  # such as train:optim_*; empty for the whole file
    meaning: str
    keys: tuple[KeyDescription, ...]


def describe(own: Mapping[str, type[Section]]) -> Iterator[SectionDescription]:
    """Yield the sections of an option file in their order, then ``own``: sections of components, by key path."""
    yield from _sections("", schema.Options)
    for path, section in own.items():
        yield _section(path, section)


def to_text(sections: Iterator[SectionDescription]) -> str:
    """Return a listing for the screen."""
    lines = []
    for section in sections:
        lines += ["", f"{section.path or 'option file'} - {section.meaning}"]
        for key in section.keys:
            default = f" ({key.default})" if key.default else ""
            if key.default == NEEDED:
                default = f", {NEEDED}"
            lines += [f"  {key.name}: {key.expected}{default}", f"      {key.meaning}"]
    return "\n".join(lines[1:])


def to_markdown(sections: Iterator[SectionDescription]) -> str:
    """Return a page for the documentation."""
    lines = ["# Options", "", "This page is made by `basicsr options --markdown`. `*` stands for a name."]
    for section in sections:
        lines += ["", f"## {f'`{section.path}`' if section.path else 'The option file'}", "", section.meaning, ""]
        lines += ["| key | takes | default | meaning |", "|---|---|---|---|"]
        for key in section.keys:
            default = f"`{key.default}`" if key.default not in ("", NEEDED) else key.default
            lines.append(f"| `{key.name}` | {key.expected} | {default} | {key.meaning} |")
    return "\n".join(lines)


def json_schema() -> str:
    """Return the JSON schema of an option file. Editors complete and check keys with this schema."""
    return json.dumps(schema.Options.model_json_schema(), indent=1)


def _sections(path: str, section: type[Section]) -> Iterator[SectionDescription]:
    yield _section(path, section)
    kinds = {name: field.annotation for name, field in section.model_fields.items()}
    kinds |= {form: kind for form, (kind, _) in section.FORMS.items()}
    for name, kind in kinds.items():
        inner = inner_section(kind)
        if inner is not None and inner.model_fields:
            below = f"{name}:*" if is_by_name(kind) else name
            yield from _sections(f"{path}:{below}" if path else below, inner)


def _section(path: str, section: type[Section]) -> SectionDescription:
    keys = [_key(name, field) for name, field in section.model_fields.items()]
    keys += [KeyDescription(form, _expected(kind), "", meaning) for form, (kind, meaning) in section.FORMS.items()]
    meaning = " ".join((section.__doc__ or "").split())
    return SectionDescription(path, meaning, tuple(keys))


def _key(name: str, field: FieldInfo) -> KeyDescription:
    readers = readers_of(field)
    meaning = str(field.description)
    if readers:
        meaning += f" Read by {' and '.join(readers)}."
    in_words = next((part.text for part in field.metadata if isinstance(part, Expected)), None)
    return KeyDescription(name, in_words or _expected(field.annotation), _default(field), meaning)


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return NEEDED
    if field.default is None or isinstance(field.default, Section) or field.default in ([], {}):
        return ""
    return json.dumps(field.default).strip('"')


def _expected(kind: Any) -> str:  # noqa: ANN401 any type
    """Return what a type takes, in words, such as "a whole number from 1"; empty if the type does not say."""
    parts = get_args(kind)
    for part in (*getattr(kind, "__metadata__", ()), *parts):
        if isinstance(part, Expected):
            return part.text
    if is_by_name(kind):
        return "options by name"
    if inner_section(kind) is not None:
        return "options"
    return next(filter(None, map(_expected, parts)), "")
