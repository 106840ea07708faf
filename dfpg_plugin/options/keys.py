"""Which keys options may have: those that BasicSR and this package read, and those in the sources of the components.

A model or data set of another package reads what it likes from its options. So a key counts as unread only where it
stands neither in the list below nor, as a string or a field, in a file that defines the component or one of its bases.
Such a key is a mistake, or it is idle: it changes nothing, and a training only says so.
"""

import ast
import inspect
import logging
from collections.abc import Iterable, Iterator, Mapping
from functools import cache

import torch
from basicsr.models import lr_scheduler
from basicsr.utils.registry import DATASET_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY, Registry

from dfpg_plugin.checks import close_names
from dfpg_plugin.options.reading import Options, key_lines, with_line

TOP = {
    *("name", "model_type", "scale", "num_gpu", "manual_seed", "datasets", "path", "train", "val", "logger"),
    *("dist_params", "plugins", "find_unused_parameters"),
    # added by BasicSR and by complete():
    *("is_train", "auto_resume", "debug", "dist", "root_path", "rank", "world_size"),
}
SECTIONS = {
    "train": {"total_iter", "warmup_iter", "non_finite"},
    "val": {"val_freq", "save_img", "suffix", "metrics", "set_metrics", "batch_size", "pbar", "winograd"},
    "path": {
        *(
            "root",
            "resume_state",
            "ignore_resume_networks",
            "experiments_root",
            "results_root",
            "models",
            "training_states",
        ),
        *("log", "visualization"),
    },
}
CLOSED_SECTIONS = {
    "logger": {"print_freq", "save_checkpoint_freq", "use_tb_logger", "wandb", "keep_checkpoints"},
    "dist_params": {"backend", "port", "timeout"},
    "logger:wandb": {"project", "resume_id"},
}
OF_A_NETWORK = ("pretrain_network_{}", "param_key_{}", "strict_load_{}")  # in `path`
NOT_READERS = ("torch", "abc", "typing")
OF_A_LOADER = {
    *("name", "type", "phase", "scale", "seed", "batch_size_per_gpu", "num_worker_per_gpu", "dataset_enlarge_ratio"),
    *("prefetch_mode", "num_prefetch_queue", "pin_memory", "persistent_workers", "io_backend", "use_shuffle"),
}


def unknown_keys(opt: Options) -> Iterator[str]:
    """Yield a line for every key that nothing reads and that is a mistake, with the names nearest to it."""
    for section, options, component, known in _of_components(opt):
        for key, hint in _unread(options, known):
            if not _is_idle(key, options[key], component):
                yield f"{_path(section, key)}: unknown key.{hint}"
    for section, known in CLOSED_SECTIONS.items():
        *above, last = section.split(":")
        parent = opt.get(above[0]) if above else opt
        yield from _unknown(section, parent.get(last) if isinstance(parent, Mapping) else None, known)
    for key, options in (opt.get("train") or {}).items():
        yield from _unknown_to_torch(key, options)


def warn_of_idle_keys(opt: Options, option_file: str) -> None:
    """Log every key that the model or data set it is meant for does not read, with its line in the option file."""
    # not get_root_logger: called before BasicSR's own loop opens its log, it would leave that without one
    logger, lines = logging.getLogger("basicsr"), key_lines(option_file)
    for section, options, component, known in _of_components(opt):
        for key, hint in _unread(options, known):
            if _is_idle(key, options[key], component):
                text = f"{_path(section, key)}: not read by {component.__name__}, as far as its source tells.{hint}"
                logger.warning(with_line(text, lines))


def _of_components(opt: Options) -> Iterator[tuple[str, Mapping, type, set[str]]]:
    """Yield (section, its options, the component that reads them, the keys known there) where there is a source."""
    model = _find(MODEL_REGISTRY, opt["model_type"])
    networks = [key.removeprefix("network_") for key in opt if key.startswith("network_")]
    of_networks = {form.format(network) for form in OF_A_NETWORK for network in networks}
    if model is not None and (by_model := keys_read_by(model)) is not None:
        yield "", opt, model, TOP | by_model
        for section, known in SECTIONS.items():
            extra = of_networks if section == "path" else set()
            if isinstance(opt.get(section), Mapping):
                yield section, opt[section], model, known | extra | by_model
    for phase, options in opt["datasets"].items():
        dataset = _find(DATASET_REGISTRY, options.get("type"))
        if dataset is not None and (by_dataset := keys_read_by(dataset)) is not None:
            yield f"datasets:{phase}", options, dataset, OF_A_LOADER | by_dataset


def _is_idle(key: object, value: object, component: type) -> bool:
    package = component.__module__.split(".")[0]
    if package == "basicsr":
        # its own option files hold values that only other models or data sets of it read; what none of them reads is
        # misspelt, and a network, loss or optimizer that nothing builds is missed
        return key in _keys_read_in_basicsr() and not isinstance(value, Mapping)
    return package != __name__.split(".")[0]  # others may read keys in files that do not define them


@cache
def _keys_read_in_basicsr() -> frozenset[str]:
    keys = {*TOP, *OF_A_LOADER, *(key for section in SECTIONS.values() for key in section)}
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
