"""What kind of value each key that BasicSR and this package read may have."""

import math
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase

from dfpg_plugin.options.reading import Options
from dfpg_plugin.speed.acceleration import PRECISIONS

MOST_SEED = 4_000_000_000  # NumPy takes 32 bits, and each process adds its rank
Kind = tuple[str, Callable[[object], bool]]  # what is expected, in words, and whether a value is that


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object, least: int) -> bool:
    return _is_number(value) and float(value).is_integer() and value >= least  # type: ignore[arg-type, operator]


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


YES_OR_NO: Kind = ("true or false", lambda value: isinstance(value, bool))
TEXT: Kind = ("text", lambda value: isinstance(value, str))
TEXTS: Kind = ("a list of names", _texts)
NUMBER: Kind = ("a number", _is_number)
POSITIVE: Kind = ("a number above 0", lambda value: _is_number(value) and value > 0)  # type: ignore[operator]
FROM_0: Kind = ("a whole number from 0", lambda value: _is_whole(value, 0))
FROM_1: Kind = ("a whole number from 1", lambda value: _is_whole(value, 1))
WHOLE: Kind = ("a whole number", lambda value: _is_whole(value, -(2**63)))
SEED: Kind = (f"a whole number from 0 to {MOST_SEED}", lambda value: _is_whole(value, 0) and value <= MOST_SEED)  # type: ignore[operator]
SHARE: Kind = ("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)  # type: ignore[operator]
DEVICES: Kind = ("auto or a whole number from 0", lambda value: value == "auto" or _is_whole(value, 0))
PRECISION: Kind = (" or ".join(PRECISIONS), lambda value: value in tuple(PRECISIONS))
SECTION: Kind = ("options as `key: value`", lambda value: isinstance(value, dict))

KINDS: dict[str, Kind] = {
    "model_type": TEXT, "scale": FROM_1, "num_gpu": DEVICES, "manual_seed": SEED, "find_unused_parameters": YES_OR_NO,
    "datasets:*": SECTION, "dist_params:backend": TEXT, "dist_params:port": FROM_1,
    "dist_params:timeout": POSITIVE,
    "datasets:*:name": TEXT, "datasets:*:type": TEXT, "datasets:*:dataroot_*": TEXT,
    "datasets:*:batch_size_per_gpu": FROM_1, "datasets:*:num_worker_per_gpu": FROM_0,
    "datasets:*:dataset_enlarge_ratio": POSITIVE, "datasets:*:pin_memory": YES_OR_NO,
    "datasets:*:persistent_workers": YES_OR_NO, "datasets:*:num_prefetch_queue": FROM_1,
    "path:pretrain_network_*": TEXT, "path:param_key_*": TEXT, "path:strict_load_*": YES_OR_NO,
    "path:resume_state": TEXT, "path:root": TEXT, "path:ignore_resume_networks": TEXTS,
    "train:warmup_iter": WHOLE, "train:ema_decay": SHARE, "train:grad_clip_norm": POSITIVE, "train:scheduler": SECTION,
    "train:optim_*": SECTION, "train:*_opt:*_weight": NUMBER, "train:non_finite": SECTION,
    "train:amp": PRECISION, "train:accumulate": FROM_1, "train:compile": YES_OR_NO, "train:tf32": YES_OR_NO,
    "train:cuda_graph": YES_OR_NO,
    "val:amp": PRECISION, "val:tile": FROM_1, "val:tile_overlap": FROM_0, "val:winograd": YES_OR_NO,
    "val:save_img": YES_OR_NO, "val:suffix": TEXT, "val:pbar": YES_OR_NO, "val:batch_size": FROM_1,
    "val:pad_to": FROM_1, "val:metrics": SECTION, "val:metrics:*": SECTION,
    "val:metrics:*:crop_border": FROM_0, "val:set_metrics": SECTION,
    "val:set_metrics:*": SECTION,
    "logger:use_tb_logger": YES_OR_NO, "logger:wandb": SECTION, "logger:keep_checkpoints": FROM_1,
    "logger:wandb:project": TEXT, "logger:wandb:resume_id": TEXT,
    "train:scheduler:step_size": FROM_1, "train:scheduler:gamma": POSITIVE, "*:type": TEXT,
}  # fmt: skip
WHOLE_KINDS = (FROM_0, FROM_1, WHOLE, SEED, DEVICES)
COUNTS = ("train:total_iter", "val:val_freq", "logger:print_freq", "logger:save_checkpoint_freq")  # BasicSR takes 5e3
WHOLE_KEYS = (
    *(form for form, kind in KINDS.items() if kind in WHOLE_KINDS),
    *("datasets:*:gt_size", "datasets:*:seed", "datasets:*:kernels_per_size"),
    *("train:non_finite:limit", *COUNTS),
)
LEFT_OUT = (None,)  # stands for the default, as in BasicSR


def wrong_kinds(opt: Options) -> Iterator[str]:
    """Yield a line for every value of the wrong kind, and for everything that is not a number."""
    for path, value in _walk(opt, ""):
        if isinstance(value, float) and math.isnan(value):
            yield f"{path}: expected a value, got nan, which is not a number."
            continue
        kind = next((kind for form, kind in KINDS.items() if _fits(path, form)), None)
        if kind is not None and value not in LEFT_OUT and not kind[1](value):
            yield f"{path}: expected {kind[0]}, got {value!r}."


def convert_whole_numbers(opt: Options, prefix: str = "") -> list[str]:
    """Replace whole numbers that are written like fractions, ``2.0`` or ``1e3``, in place; return their key paths.

    Python takes none of these where it counts.
    """
    converted = []
    for key, value in opt.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict):
            converted += convert_whole_numbers(value, f"{path}:")
        elif isinstance(value, float) and value.is_integer() and any(_fits(path, form) for form in WHOLE_KEYS):
            opt[key] = int(value)
            converted.append(path)
    return converted


def _walk(section: Mapping, prefix: str) -> Iterator[tuple[str, object]]:
    for key, value in section.items():
        path = f"{prefix}{key}"
        yield path, value
        if isinstance(value, Mapping):
            yield from _walk(value, f"{path}:")


def _fits(path: str, form: str) -> bool:
    """Compare key by key: a star stands for a key, or a part of one; before ``type`` for any number of them."""
    if form == "*:type":
        return path.endswith(":type")
    keys, parts = path.split(":"), form.split(":")
    return len(keys) == len(parts) and all(map(fnmatchcase, keys, parts))
