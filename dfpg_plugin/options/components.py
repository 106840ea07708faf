"""Find components by name, and compare the arguments of the options with their signatures."""

import inspect
from collections.abc import Sequence

from basicsr.utils.registry import Registry

from dfpg_plugin.checks import UserError, check_keys, close_names

BASICSR_SUFFIX = "_basicsr"  # BasicSR looks a name up with it, too


def look_up(key: str, registry: Registry, name: object, plugins: Sequence[str] = ()) -> object:
    """Return the component that a registry holds under a name. Raises UserError, naming ``key``, for other names."""
    known = dict(iter(registry))
    found = known.get(name, known.get(f"{name}{BASICSR_SUFFIX}")) if isinstance(name, str) else None
    if found is None:
        kind = registry._name
        hint = close_names(str(name), (k.removesuffix(BASICSR_SUFFIX) for k in known))
        raise UserError(
            f"{key}: no {kind} is called {name!r}.{hint} Plugins loaded: {', '.join(plugins)}. "
            "`basicsr list` shows every name; a `plugins:` list in the YAML loads others."
        )
    return found


def check_arguments(
    key: str, component: object, arguments: dict, given: Sequence[str] = (), extra: Sequence[str] = ()
) -> None:
    """Compare arguments with a signature. ``given``: those that are passed later; ``extra``: others that may stand."""
    parameters = dict(inspect.signature(component).parameters)  # type: ignore[arg-type]
    rest = [name for name, p in parameters.items() if p.kind is p.VAR_KEYWORD]
    for name in rest:
        del parameters[name]
    if not rest or (extra and not _is_read(component, rest[0])):
        check_keys(key, arguments, {*parameters, *extra} - set(given))
    for name, p in parameters.items():
        is_needed = p.default is p.empty and p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
        if is_needed and name not in (*arguments, *given):
            raise UserError(f"{key}: the key {name!r} is missing.")


def _is_read(function: object, rest: str) -> bool:
    """Tell whether a metric reads its ``**kwargs``: BasicSR's take them for the sake of one, and swallow all."""
    source = source_of(function)
    return not source or source.count(rest) > 1


def source_of(function: object) -> str:
    """Return the source of a function or class; empty where there is none to read."""
    try:
        return inspect.getsource(function)  # type: ignore[arg-type]
    except (OSError, TypeError):
        return ""
