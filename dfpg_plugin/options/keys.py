"""Which keys options may have: those in the schema, and those in the sources of the components.

A model or data set of another package may read any key from its options. So a source is searched, too: the files that
define the component and its bases. A key counts as unread if it is not in the schema, and if these files have it
neither as a string nor as a field.
"""

import ast
import inspect
import logging
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from functools import cache

import torch
from basicsr.models import lr_scheduler
from basicsr.utils.registry import DATASET_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY

from dfpg_plugin.checks import close_names
from dfpg_plugin.options import schema
from dfpg_plugin.options.completing import section_of_data_set
from dfpg_plugin.options.components import find
from dfpg_plugin.options.reading import OptionFile, Options, with_line
from dfpg_plugin.options.section import Section

# keys that BasicSR's parser, complete() and RunOptions add to the options
ADDED = {"is_train", "auto_resume", "debug", "dist", "root_path", "rank", "world_size"}
# key path of a section: the schema of the section. A model may read keys of these sections that are not in the schema.
READ_BY_THE_MODEL: dict[str, type[Section]] = {
    "": schema.Options,
    "train": schema.Train,
    "val": schema.Val,
    "path": schema.PathSection,
}
CLOSED_SECTIONS: dict[str, type[Section]] = {  # sections whose keys are all in the schema
    "logger": schema.Logger,
    "logger:wandb": schema.Wandb,
    "dist_params": schema.DistParams,
    "train:non_finite": schema.NonFinite,
}
KEYS_OF_A_NETWORK = ("pretrain_network_{}", "param_key_{}", "strict_load_{}")  # in the section `path`
# keys by which BasicSR loads training images, and no others (basicsr/data/__init__.py:58-83)
KEYS_OF_TRAINING = ("batch_size_per_gpu", "num_worker_per_gpu", "persistent_workers", "dataset_enlarge_ratio")
NOT_READERS = ("torch", "abc", "typing")  # packages whose classes read no options


class Unread(Enum):
    """The meaning of a key that nothing reads."""

    MISTAKE = "an error: the key is misspelt, or the user expects something that will not happen"
    IDLE = "a warning: the key changes nothing, or a source that is not searched reads the key"


def unknown_keys(opt: Options) -> Iterator[str]:
    """Yield a line for every unread key that is a mistake, with the known names nearest to the key."""
    for path, hint, _ in _unread_keys(opt, Unread.MISTAKE):
        yield f"{path}: unknown key.{hint}"
    for path, section in CLOSED_SECTIONS.items():
        yield from _unknown(path, _section_at(opt, path), section.model_fields)
    for key, options in (opt.get("train") or {}).items():
        yield from _unknown_to_torch(key, options)


def warn_of_idle_keys(opt: Options, file: OptionFile) -> None:
    """Log a warning for every idle key, and every key of a data set without effect, with the key's line in the file."""
    # not get_root_logger: a call of it before BasicSR's own loop opens its log would leave this loop without a log file
    logger = logging.getLogger("basicsr")
    for path, hint, component in _unread_keys(opt, Unread.IDLE):
        text = f"{path}: not read by {component.__name__}, as far as its source tells.{hint}"
        logger.warning(with_line(text, file.lines))
    for text in _without_effect(opt["datasets"]):
        logger.warning(with_line(text, file.lines))


def _without_effect(datasets: Mapping) -> Iterator[str]:
    """Yield a line for every value that BasicSR's loaders ignore, unless a data set of another package may read it."""
    for name, options in datasets.items():
        dataset = find(DATASET_REGISTRY, options.get("type"))
        is_ours = getattr(dataset, "__module__", "").startswith(f"{__name__.split('.')[0]}.")
        read = () if is_ours else keys_read_by(dataset) or ()
        path = f"datasets:{name}"
        if name.split("_")[0] != "train":
            for key in (key for key in KEYS_OF_TRAINING if options.get(key) and key not in read):
                yield f"{path}:{key}: has no effect in a validation or test set. Remove it."
        elif options.get("use_shuffle") is False and "use_shuffle" not in read:
            yield f"{path}:use_shuffle: false has no effect. Training images are always shuffled."


def _unread_keys(opt: Options, meaning: Unread) -> Iterator[tuple[str, str, type]]:
    """Yield (key path, nearest names, component) of every unread key that has this meaning."""
    for section, options, component, known in _sections_of_components(opt):
        for key, hint in _not_in(known, options):
            if _meaning(key, options[key], component) is meaning:
                yield _path(section, key), hint, component


def _meaning(key: object, value: object, component: type) -> Unread:
    """Return what an unread key means, by the package of the component.

    - This package: a mistake.
    - BasicSR: idle if another component of BasicSR reads the key, since BasicSR's own option files hold such keys. A
      key that holds a section is a mistake: the user expects its network, loss or optimizer to be built.
    - Another package: idle. That package may read the key in a file that does not define the component.
    """
    package = component.__module__.split(".")[0]
    if package == "basicsr":
        is_idle = key in _keys_read_in_basicsr() and not isinstance(value, Mapping)
    else:
        is_idle = package != __name__.split(".")[0]
    return Unread.IDLE if is_idle else Unread.MISTAKE


def _sections_of_components(opt: Options) -> Iterator[tuple[str, Mapping, type, set[str]]]:
    """Yield (key path, options, component that reads them, known keys) of each section whose component has a source."""
    model = find(MODEL_REGISTRY, opt["model_type"])
    if model is not None and (by_model := keys_read_by(model)) is not None:
        for path, section in READ_BY_THE_MODEL.items():
            options = _section_at(opt, path)
            if isinstance(options, Mapping):
                yield path, options, model, section.known_to(model) | by_model | _not_in_the_schema(opt, path)
    for phase, options in opt["datasets"].items():
        dataset = find(DATASET_REGISTRY, options.get("type"))
        if dataset is not None and (by_dataset := keys_read_by(dataset)) is not None:
            own = section_of_data_set(options.get("type"))
            described = set() if own is None else set(own.model_fields)
            yield f"datasets:{phase}", options, dataset, schema.DataSet.known_to(dataset) | described | by_dataset


def _not_in_the_schema(opt: Options, path: str) -> set[str]:
    """Return the known keys that no schema has: added keys at the top, keys of the file's networks in ``path``."""
    networks = [key.removeprefix("network_") for key in opt if key.startswith("network_")]
    names = {form.format(network) for form in KEYS_OF_A_NETWORK for network in networks}
    return {"": ADDED, "path": names}.get(path, set())


def _section_at(opt: Options, path: str) -> object:
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
    """Return the strings and fields in the sources of a class and its bases, or None if a source can't be read."""
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


def _unknown(section: str, options: object, known: Iterable[str]) -> Iterator[str]:
    if isinstance(options, Mapping):
        for key, hint in _not_in(known, options):
            yield f"{_path(section, key)}: unknown key.{hint}"


def _not_in(known: Iterable[str], options: Mapping) -> Iterator[tuple[object, str]]:
    """Yield every key of the options that is not known, and a hint with the known names nearest to the key."""
    known = set(known)
    for key in options:
        if key not in known:
            yield key, close_names(str(key), (k for k in known if k.isidentifier()))


def _path(section: str, key: object) -> str:
    return f"{section}:{key}" if section else str(key)


def _unknown_to_torch(key: str, options: object) -> Iterator[str]:
    """Yield a line for every argument that an optimizer or scheduler does not take. Its type is not checked here."""
    if not isinstance(options, Mapping) or not isinstance(options.get("type"), str):
        return
    name = options["type"]
    if key.startswith("optim_"):
        component = getattr(torch.optim, name, None)
    elif key == "scheduler":
        component = getattr(lr_scheduler, name, None) or getattr(torch.optim.lr_scheduler, name, None)
        if name == "MultiStepLR":  # BasicSR builds its own class for this name
            component = lr_scheduler.MultiStepRestartLR
    else:
        return
    if component is not None:
        known = set(inspect.signature(component).parameters) - {"params", "optimizer", "self"}
        yield from _unknown(f"train:{key}", options, {"type", *known})
