"""Which keys options may have: those of the schema, and those in the sources of the components.

A model or data set of another package reads what it likes from its options. So a key counts as unread only where it
stands neither in the schema nor, as a string or a field, in a file that defines the component or one of its bases.
"""

import ast
import inspect
import logging
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from functools import cache

import torch
from basicsr.models import lr_scheduler
from basicsr.utils.registry import DATASET_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY, Registry

from dfpg_plugin.checks import close_names
from dfpg_plugin.options import schema
from dfpg_plugin.options.completing import section_of_data_set
from dfpg_plugin.options.reading import OptionFile, Options, with_line
from dfpg_plugin.options.section import Section

# what BasicSR's parser and complete() add to an option file
ADDED = {"is_train", "auto_resume", "debug", "dist", "root_path", "rank", "world_size"}
READ_BY_THE_MODEL: dict[str, type[Section]] = {
    "": schema.Options,
    "train": schema.Train,
    "val": schema.Val,
    "path": schema.PathSection,
}
CLOSED_SECTIONS: dict[str, type[Section]] = {
    "logger": schema.Logger,
    "logger:wandb": schema.Wandb,
    "dist_params": schema.DistParams,
    "train:non_finite": schema.NonFinite,
}
OF_A_NETWORK = ("pretrain_network_{}", "param_key_{}", "strict_load_{}")  # in `path`
NOT_READERS = ("torch", "abc", "typing")


class Unread(Enum):
    """What a key means that nothing reads."""

    MISTAKE = "an error: the key is misspelt, or what it asks for would be missed"
    IDLE = "a warning: the key changes nothing, or its reader can't be seen"


def unknown_keys(opt: Options) -> Iterator[str]:
    """Yield a line for every key that nothing reads and that is a mistake, with the names nearest to it."""
    for path, hint, _ in _unread_keys(opt, Unread.MISTAKE):
        yield f"{path}: unknown key.{hint}"
    for path, section in CLOSED_SECTIONS.items():
        yield from _unknown(path, _section(opt, path), section.model_fields)
    for key, options in (opt.get("train") or {}).items():
        yield from _unknown_to_torch(key, options)


def warn_of_idle_keys(opt: Options, file: OptionFile) -> None:
    """Log every key that the model or data set it is meant for does not read, with its line in the option file.

    And ``use_shuffle: false``, which BasicSR reads nowhere.
    """
    # not get_root_logger: called before BasicSR's own loop opens its log, it would leave that without one
    logger = logging.getLogger("basicsr")
    for path, hint, component in _unread_keys(opt, Unread.IDLE):
        text = f"{path}: not read by {component.__name__}, as far as its source tells.{hint}"
        logger.warning(with_line(text, file.lines))
    train_set = opt["datasets"].get("train") or {}
    reader = _find(DATASET_REGISTRY, train_set.get("type"))
    if train_set.get("use_shuffle") is False and "use_shuffle" not in (keys_read_by(reader) or ()):
        text = "datasets:train:use_shuffle: false has no effect. Training images are always shuffled."
        logger.warning(with_line(text, file.lines))


def _unread_keys(opt: Options, meaning: Unread) -> Iterator[tuple[str, str, type]]:
    """Yield (key path, nearest names, component) of every key that nothing reads and that has this meaning."""
    for section, options, component, known in _of_components(opt):
        for key, hint in _unread(options, known):
            if _meaning(key, options[key], component) is meaning:
                yield _path(section, key), hint, component


def _meaning(key: object, value: object, component: type) -> Unread:
    """Decide what an unread key means.

    - For a component of this package it is a mistake.
    - For one of BasicSR it is idle if others of BasicSR read the key: BasicSR's own option files hold such keys. A
      section is a mistake all the same, since a network, loss or optimizer that nothing builds is missed.
    - For one of another package it is idle: that package may read keys in files that do not define the component.
    """
    package = component.__module__.split(".")[0]
    if package == "basicsr":
        is_idle = key in _keys_read_in_basicsr() and not isinstance(value, Mapping)
    else:
        is_idle = package != __name__.split(".")[0]
    return Unread.IDLE if is_idle else Unread.MISTAKE


def _of_components(opt: Options) -> Iterator[tuple[str, Mapping, type, set[str]]]:
    """Yield (section, its options, the component that reads them, the keys known there) where there is a source."""
    model = _find(MODEL_REGISTRY, opt["model_type"])
    if model is not None and (by_model := keys_read_by(model)) is not None:
        for path, section in READ_BY_THE_MODEL.items():
            options = _section(opt, path)
            if isinstance(options, Mapping):
                yield path, options, model, section.known_to(model) | by_model | _of_this_file(opt, path)
    for phase, options in opt["datasets"].items():
        dataset = _find(DATASET_REGISTRY, options.get("type"))
        if dataset is not None and (by_dataset := keys_read_by(dataset)) is not None:
            own = section_of_data_set(options.get("type"))
            described = set() if own is None else set(own.model_fields)
            yield f"datasets:{phase}", options, dataset, schema.DataSet.known_to(dataset) | described | by_dataset


def _of_this_file(opt: Options, path: str) -> set[str]:
    """Return the keys that stand in no schema: those that were added, and those of the networks of these options."""
    networks = [key.removeprefix("network_") for key in opt if key.startswith("network_")]
    names = {form.format(network) for form in OF_A_NETWORK for network in networks}
    return {"": ADDED, "path": names}.get(path, set())


def _section(opt: Options, path: str) -> object:
    found: object = opt
    for key in path.split(":") if path else ():
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


@cache
def _keys_read_in_basicsr() -> frozenset[str]:
    sections: tuple[type[Section], ...] = (*READ_BY_THE_MODEL.values(), schema.DataSet)
    keys = ADDED.union(*(section.known_to(None) for section in sections))
    for registry in (MODEL_REGISTRY, DATASET_REGISTRY):
        keys.update(*(keys_read_by(value) or () for _, value in registry if value.__module__.startswith("basicsr.")))
    for _, function in METRIC_REGISTRY:
        keys.update(inspect.signature(function).parameters)
    return frozenset(keys)


@cache
def keys_read_by(component: type | None) -> frozenset[str] | None:
    """Return the strings and fields in the sources of a class and its bases; None where there is no source to read."""
    bases = [base for base in getattr(component, "__mro__", ()) if base is not object]
    found: set[str] = set()
    for module in {inspect.getmodule(base) for base in bases if base.__module__.split(".")[0] not in NOT_READERS}:
        try:
            tree = ast.parse(inspect.getsource(module))  # type: ignore[arg-type]
        except (OSError, TypeError):
            return None
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(node.target.id)
    return frozenset(found) if bases else None


def _find(registry: Registry, name: object) -> type | None:
    known = dict(iter(registry))
    return known.get(name, known.get(f"{name}_basicsr")) if isinstance(name, str) else None


def _unknown(section: str, options: object, known: Iterable[str]) -> Iterator[str]:
    for key, hint in _unread(options, known) if isinstance(options, Mapping) else ():
        yield f"{_path(section, key)}: unknown key.{hint}"


def _unread(options: Mapping, known: Iterable[str]) -> Iterator[tuple[object, str]]:
    """Yield every key that is not known, and the names nearest to it."""
    known = set(known)
    for key in options:
        if key not in known:
            yield key, close_names(str(key), (k for k in known if k.isidentifier()))


def _path(section: str, key: object) -> str:
    return f"{section}:{key}" if section else str(key)


def _unknown_to_torch(key: str, options: object) -> Iterator[str]:
    """Check the arguments of an optimizer or a scheduler; its own type is checked where it is built."""
    if not isinstance(options, Mapping) or not isinstance(options.get("type"), str):
        return
    name = options["type"]
    if key.startswith("optim_"):
        component = getattr(torch.optim, name, None)
    elif key == "scheduler":
        component = getattr(lr_scheduler, name, None) or getattr(torch.optim.lr_scheduler, name, None)
        if name == "MultiStepLR":  # BasicSR builds its own for it
            component = lr_scheduler.MultiStepRestartLR
    else:
        return
    if component is not None:
        known = set(inspect.signature(component).parameters) - {"params", "optimizer", "self"}
        yield from _unknown(f"train:{key}", options, {"type", *known})
