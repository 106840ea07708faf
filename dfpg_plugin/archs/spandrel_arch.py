"""Restorers of the package spandrel (NAFNet, Uformer, HAT, DAT...), chosen by name in the YAML. Its licence is MIT."""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping

from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from dfpg_plugin.checks import UserError, check_choice, check_keys


@ARCH_REGISTRY.register()
def SpandrelNet(*, architecture: str, options: Mapping | None = None) -> nn.Module:  # noqa: N802 - an arch's name
    """Return a network of https://github.com/chaiNNer-org/spandrel without a wrapper, so its weights keep their names.

    ``architecture``: a name such as ``NAFNet``, or ``PLKSR.RealPLKSR`` for an architecture with several classes.
    ``options``: the constructor's arguments. Most networks map (B,3,H,W) in [0,1] to the same. Raises UserError if
    spandrel or a package that the architecture needs is missing, for unknown names, and for options that do not fit.
    """
    try:
        from spandrel import architectures
    except ImportError as error:
        raise UserError("SpandrelNet: needs the package spandrel. Install it: pip install spandrel.") from error
    folder, _, class_name = str(architecture).partition(".")
    known = [module.name for module in pkgutil.iter_modules(architectures.__path__) if not module.name.startswith("_")]
    check_choice("SpandrelNet architecture", folder, known)
    try:
        module = importlib.import_module(f"{architectures.__name__}.{folder}")
    except ImportError as error:
        raise UserError(f"SpandrelNet architecture: {folder} needs a package that is missing ({error}).") from error
    classes = {name: v for name, v in vars(module).items() if inspect.isclass(v) and issubclass(v, nn.Module)}
    check_choice(f"SpandrelNet architecture: {folder}", class_name or folder, classes)
    network = classes[class_name or folder]
    check_keys(f"SpandrelNet options of {architecture}", options or {}, inspect.signature(network).parameters)
    try:
        return network(**(options or {}))
    except (AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"SpandrelNet options: {architecture} can't be built with {options}: {error}.") from error
