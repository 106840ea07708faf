"""Plugins: packages that register components in BasicSR's registries, found by entry point or named in the options."""

import importlib
from collections.abc import Sequence
from importlib.metadata import entry_points

from dfpg_plugin.checks import UserError

GROUP = "basicsr.plugins"


def load_plugins(names: Sequence[str] = ()) -> list[str]:
    """Import every plugin of the entry-point group ``basicsr.plugins``, then the named packages. Return all names.

    A plugin can be loaded twice, or in another order, without harm. Raises UserError, naming the plugin, if an import
    fails.
    """
    modules = [entry.module for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)]
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise UserError(f"plugins: expected a list of package names, got {names!r}.")
    loaded = list(dict.fromkeys([*modules, *names]))
    for name in loaded:
        try:
            importlib.import_module(name)
        except Exception as error:  # a plugin may fail in any way while it is imported
            raise UserError(f"plugins: {name} can't be imported ({type(error).__name__}: {error}).") from error
    return loaded
