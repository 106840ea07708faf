"""Find components by their names, and compare the arguments in the options with a component's signature."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from basicsr.utils.registry import Registry

from dfpg_plugin.checks import UserError, check_keys, close_names

BASICSR_SUFFIX = "_basicsr"  # BasicSR also looks for a name with this suffix


def find(registry: Registry, name: object) -> Any:  # noqa: ANN401 a class or a function
    """Return the component that a registry holds under ``name``, or under ``name`` with BasicSR's suffix, or None."""
    known = dict(iter(registry))
    return known.get(name, known.get(f"{name}{BASICSR_SUFFIX}")) if isinstance(name, str) else None


def look_up(key: str, registry: Registry, name: object, plugins: Sequence[str] = ()) -> Any:  # noqa: ANN401
    """Return the component that a registry holds under ``name``. Raises UserError, naming ``key``, if there is none.

    ``plugins``: the names of the loaded plugins, for the message.
    """
    found = find(registry, name)
    if found is None:
        hint = close_names(str(name), (known.removesuffix(BASICSR_SUFFIX) for known, _ in registry))
        raise UserError(
            f"{key}: no {registry._name} is called {name!r}.{hint} Plugins loaded: {', '.join(plugins)}. "
            "`basicsr list` shows every name; a `plugins:` list in the YAML loads others."
        )
    return found


def check_arguments(
    key: str, component: Callable, arguments: dict, given: Sequence[str] = (), extra: Sequence[str] = ()
) -> None:
    """Raise UserError if options name an argument that a component does not take, or lack one that it needs.

    ``given``: arguments that the caller passes later, so that options may not name them. ``extra``: further names that
    the options of a metric may have.
    """
    parameters = dict(inspect.signature(component).parameters)
    keywords = [name for name, p in parameters.items() if p.kind is p.VAR_KEYWORD]  # ["kwargs"], or nothing
    for name in keywords:
        del parameters[name]
    takes_any = bool(keywords) and (not extra or _is_read(component, keywords[0]))
    if not takes_any:
        check_keys(key, arguments, {*parameters, *extra} - set(given))
    for name, p in parameters.items():
        is_needed = p.default is p.empty and p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
        if is_needed and name not in (*arguments, *given):
            raise UserError(f"{key}: the key {name!r} is missing.")


def _is_read(function: Callable, keywords: str) -> bool:
    """Tell whether a metric reads its ``**kwargs``. BasicSR's metrics have them only to ignore the key ``better``."""
    source = source_of(function)
    return not source or source.count(keywords) > 1


def source_of(function: Callable) -> str:
    """Return the source of a function or class, or an empty string if there is no source to read."""
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return ""
