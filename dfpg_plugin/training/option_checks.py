"""Check options before anything is built: component names and arguments, numbers, files and folders."""

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from basicsr.data.single_image_dataset import SingleImageDataset
from basicsr.metrics import calculate_metric
from basicsr.utils.registry import (
    ARCH_REGISTRY,
    DATASET_REGISTRY,
    LOSS_REGISTRY,
    METRIC_REGISTRY,
    MODEL_REGISTRY,
    Registry,
)

from dfpg_plugin.checks import UserError, check_choice, check_file, check_keys, check_positive, close_names
from dfpg_plugin.training.options import Options

BASICSR_SUFFIX = "_basicsr"  # BasicSR looks a name up with it, too
GROUND_TRUTH = "img2"  # what BasicSR calls it in a metric's parameters
TRIAL_SIZE = 128  # px
GIVEN = ("img", GROUND_TRUTH)  # to metrics, by the model
HIGHER, LOWER = "higher", "lower"
PHASES = {True: ("train", "val"), False: ("test", "val")}


def check_options(opt: Options, plugins: Sequence[str], needs_network: bool = True) -> None:
    """Raise UserError for the first thing in completed options that would fail later.

    ``plugins`` are those loaded; ``needs_network``: whether a test has to have trained weights.
    """
    for key, registry, name, arguments in _components(opt):
        component = _look_up(key, registry, name, plugins)
        if registry in (ARCH_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY):
            _check_arguments(key, component, arguments, GIVEN if registry is METRIC_REGISTRY else ())
    _check_directions(opt)
    _check_numbers(opt)
    _check_paths(opt)
    if needs_network and not opt["is_train"] and opt["path"].get("pretrain_network_g") is None:
        raise UserError("path:pretrain_network_g: missing, so there is nothing to test. Name the trained weights.")
    if opt["is_train"] and (opt.get("val") or {}).get("set_metrics"):
        raise UserError("val:set_metrics: measured by `basicsr test` only. Remove it from the training's options.")


def check_metrics(opt: Options, dataset: object, name: str) -> None:
    """Raise UserError where a metric takes a second image, the ground truth, and ``dataset`` has none."""
    if getattr(dataset, "has_gt", not isinstance(dataset, SingleImageDataset)):
        return
    metrics = (opt.get("val") or {}).get("metrics") or {}
    comparing = []
    for key, metric in metrics.items():
        function = _look_up(f"val:metrics:{key}:type", METRIC_REGISTRY, metric["type"], ())
        if GROUND_TRUTH in inspect.signature(function).parameters:  # type: ignore[arg-type]
            comparing.append(key)
    if comparing:
        raise UserError(
            f"val:metrics: the data set {name} has no ground truth, without which {', '.join(comparing)} can't be "
            "measured. Set its dataroot_gt, or use options for it that leave these metrics out."
        )


def try_metrics(opt: Options) -> None:
    """Measure two images of noise by every metric with a ground truth, to say now what would fail at a validation.

    Raises UserError, naming the metric: weights that are missing or do not fit, wrong values of its options.
    """
    images = np.random.default_rng(0).integers(0, 256, (2, TRIAL_SIZE, TRIAL_SIZE, 3), np.uint8)
    for key, metric in ((opt.get("val") or {}).get("metrics") or {}).items():
        function = _look_up(f"val:metrics:{key}:type", METRIC_REGISTRY, metric["type"], ())
        if GROUND_TRUTH in inspect.signature(function).parameters:  # type: ignore[arg-type]
            try:
                calculate_metric(dict(zip(GIVEN, images, strict=True)), metric)
            except Exception as error:  # a metric of another package raises what comes
                reason = str(error).strip().split("\n")[0]
                raise UserError(f"val:metrics:{key}: {reason or type(error).__name__}") from error


def _components(opt: Options) -> Iterator[tuple[str, Registry, object, dict]]:
    """Yield (key, registry, type, other options) of every component that the options name."""
    yield "model_type", MODEL_REGISTRY, opt["model_type"], {}
    sections = [(f"datasets:{key}", DATASET_REGISTRY, section) for key, section in opt["datasets"].items()]
    sections += [
        (key, ARCH_REGISTRY, section) for key, section in opt.items() if key.startswith("network_") and section
    ]
    train = opt.get("train") or {}
    sections += [
        (f"train:{key}", LOSS_REGISTRY, section) for key, section in train.items() if key.endswith("_opt") and section
    ]
    metrics = (opt.get("val") or {}).get("metrics") or {}
    sections += [(f"val:metrics:{key}", METRIC_REGISTRY, section) for key, section in metrics.items()]
    for key, registry, section in sections:
        if not isinstance(section, dict):
            raise UserError(f"{key}: expected options with a `type`, got {section!r}.")
        yield f"{key}:type", registry, section.get("type"), {k: v for k, v in section.items() if k != "type"}


def _look_up(key: str, registry: Registry, name: object, plugins: Sequence[str]) -> object:
    known = dict(iter(registry))
    found = known.get(name, known.get(f"{name}{BASICSR_SUFFIX}"))
    if found is None:
        kind = registry._name
        hint = close_names(str(name), (k.removesuffix(BASICSR_SUFFIX) for k in known))
        raise UserError(
            f"{key}: no {kind} is called {name!r}.{hint} Plugins loaded: {', '.join(plugins)}. "
            "`basicsr list` shows every name; a `plugins:` list in the YAML loads others."
        )
    return found


def _check_arguments(key: str, component: object, arguments: dict, given: Sequence[str] = ()) -> None:
    parameters = inspect.signature(component).parameters  # type: ignore[arg-type]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        check_keys(key.removesuffix(":type"), arguments, set(parameters) - set(given))
    for name, p in parameters.items():
        is_needed = p.default is p.empty and p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
        if is_needed and name not in (*arguments, *given):
            raise UserError(f"{key.removesuffix(':type')}: the key {name!r} is missing.")


def _check_directions(opt: Options) -> None:
    """Refuse a metric that would be taken for better the wrong way: BasicSR reads all but `lower` as `higher`."""
    for key, metric in ((opt.get("val") or {}).get("metrics") or {}).items():
        check_choice(f"val:metrics:{key}:better", metric.get("better", HIGHER), (HIGHER, LOWER))
        function = _look_up(f"val:metrics:{key}:type", METRIC_REGISTRY, metric["type"], ())
        own = inspect.signature(function).parameters.get("better")  # type: ignore[arg-type]
        if own is not None and own.default == LOWER and "better" not in metric:
            raise UserError(f"val:metrics:{key}: better: is missing, which means higher. Add `better: lower`.")


def _check_numbers(opt: Options) -> None:
    for phase in opt["datasets"]:
        check_choice(f"datasets:{phase}", phase.split("_")[0], PHASES[opt["is_train"]])
    if not opt["is_train"]:
        return
    counts: dict = {
        "train:total_iter": opt["train"]["total_iter"],
        "datasets:train:batch_size_per_gpu": opt["datasets"]["train"].get("batch_size_per_gpu"),
        "logger:print_freq": opt["logger"]["print_freq"],
        "logger:save_checkpoint_freq": opt["logger"]["save_checkpoint_freq"],
    }
    if opt.get("val") is not None:
        counts["val:val_freq"] = opt["val"].get("val_freq")
    for key, value in counts.items():
        check_positive(key, value)
        if not float(value).is_integer():
            raise UserError(f"{key}: expected a whole number, got {value!r}.")
    for key, section in opt["train"].items():
        if key.startswith("optim_"):
            check_positive(f"train:{key}:lr", (section or {}).get("lr"))
    prefetch = opt["datasets"]["train"].get("prefetch_mode")
    check_choice("datasets:train:prefetch_mode", prefetch, (None, "cuda"))  # `cpu` hangs on a damaged image
    if prefetch == "cuda" and opt["num_gpu"] == 0:
        raise UserError("datasets:train:prefetch_mode: cuda needs a GPU, and none is used here. Remove it.")


def _check_paths(opt: Options) -> None:
    for phase, dataset in opt["datasets"].items():
        for key, value in dataset.items():
            if key.startswith("dataroot_") and isinstance(value, str):
                _check_exists(f"datasets:{phase}:{key}", value)
    for key, value in opt["path"].items():
        if key.startswith("pretrain_network_") and value is not None:
            check_file(f"path:{key}", value)


def _check_exists(key: str, value: str) -> None:
    if not Path(value).expanduser().exists():
        raise UserError(
            f"{key}: the folder {value} does not exist (working directory: {Path.cwd()}). Set it to the data."
        )
