"""Which keys options may have: those that BasicSR and this package read, and those in the sources of the components.

A model or data set of another package reads what it likes from its options. So a key is unknown only where it stands
neither in the list below nor, as a string or a field, in a file that defines the component or one of its bases.
"""

import ast
import inspect
from collections.abc import Iterable, Iterator, Mapping
from functools import cache

import torch
from basicsr.models import lr_scheduler
from basicsr.utils.registry import DATASET_REGISTRY, MODEL_REGISTRY, Registry

from dfpg_plugin.checks import close_names
from dfpg_plugin.training.options import Options

TOP = {
    *("name", "model_type", "scale", "num_gpu", "manual_seed", "datasets", "path", "train", "val", "logger"),
    *("dist_params", "plugins", "find_unused_parameters"),
    *("is_train", "auto_resume", "dist", "root_path", "rank", "world_size"),  # added by BasicSR and by complete()
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
    """Yield a line for every key that nothing reads, with the names nearest to it."""
    by_model = keys_read_by(_find(MODEL_REGISTRY, opt["model_type"]))
    networks = [key.removeprefix("network_") for key in opt if key.startswith("network_")]
    of_networks = {form.format(network) for form in OF_A_NETWORK for network in networks}
    if by_model is not None:
        yield from _unknown("", opt, TOP | by_model)
        for section, known in SECTIONS.items():
            extra = of_networks if section == "path" else set()
            yield from _unknown(section, opt.get(section), known | extra | by_model)
    for section, known in CLOSED_SECTIONS.items():
        *above, last = section.split(":")
        parent = opt.get(above[0]) if above else opt
        yield from _unknown(section, parent.get(last) if isinstance(parent, Mapping) else None, known)
    for phase, options in opt["datasets"].items():
        by_dataset = keys_read_by(_find(DATASET_REGISTRY, options.get("type")))
        if by_dataset is not None:
            yield from _unknown(f"datasets:{phase}", options, OF_A_LOADER | by_dataset)
    for key, options in (opt.get("train") or {}).items():
        yield from _unknown_to_torch(key, options)


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
    if not isinstance(options, Mapping):
        return
    known = set(known)
    for key in options:
        if key not in known:
            path = f"{section}:{key}" if section else str(key)
            yield f"{path}: unknown key.{close_names(str(key), (k for k in known if k.isidentifier()))}"


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
