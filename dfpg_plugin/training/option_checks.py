"""Check options before anything is built: component names and arguments, numbers, files and folders."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
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
from dfpg_plugin.training.guards import NonFiniteOptions
from dfpg_plugin.training.option_keys import unknown_keys
from dfpg_plugin.training.option_kinds import wrong_kinds
from dfpg_plugin.training.options import Options

BASICSR_SUFFIX = "_basicsr"  # BasicSR looks a name up with it, too
GROUND_TRUTH = "img2"  # what BasicSR calls it in a metric's parameters
TRIAL_SIZE = 128  # px
GIVEN = ("img", GROUND_TRUTH)  # to metrics, by the model
HIGHER, LOWER = "higher", "lower"
PHASES = {True: ("train", "val"), False: ("test", "val")}


class OptionsError(UserError):
    """All mistakes of an option file, each in a line that names its key."""

    def __init__(self, problems: Sequence[str]) -> None:
        head = "" if len(problems) == 1 else f"{len(problems)} mistakes in the options:\n  "
        super().__init__(head + "\n  ".join(problems))


def check_options(
    opt: Options, plugins: Sequence[str], needs_network: bool = True, lines: Mapping[str, int] | None = None
) -> None:
    """Raise OptionsError for everything in completed options that would fail later, all of it at once.

    ``plugins`` are those loaded; ``needs_network``: whether a test has to have trained weights. ``lines``: those of the
    option file, by key path, to be named in the error.
    """
    problems = list(wrong_kinds(opt))
    for check in _checks(opt, plugins, needs_network):
        try:
            check()
        except UserError as error:
            problems.append(str(error))
    problems += unknown_keys(opt)
    if problems:
        of_keys = {problem.split(": ")[0]: problem for problem in reversed(problems)}  # the first one of each key
        raise OptionsError([_with_line(problem, lines or {}) for problem in reversed(of_keys.values())])


def _checks(opt: Options, plugins: Sequence[str], needs_network: bool) -> Iterator[Callable[[], object]]:
    for key, registry, section in _components(opt):
        yield partial(_check_component, key, registry, section, plugins)
    for key, metric in _metrics(opt).items():
        yield partial(_check_direction, key, metric)
    yield from _number_checks(opt)
    yield from _path_checks(opt)
    yield partial(_check_phase, opt, needs_network)


def _check_phase(opt: Options, needs_network: bool) -> None:
    if needs_network and not opt["is_train"] and opt["path"].get("pretrain_network_g") is None:
        raise UserError("path:pretrain_network_g: missing, so there is nothing to test. Name the trained weights.")
    if opt["is_train"] and (opt.get("val") or {}).get("set_metrics"):
        raise UserError("val:set_metrics: measured by `basicsr test` only. Remove it from the training's options.")


def _with_line(problem: str, lines: Mapping[str, int]) -> str:
    """Put the line of the deepest key of the file before a problem that starts with a key path."""
    parts = problem.split(": ")[0].split(":")
    for length in range(len(parts), 0, -1):
        if (line := lines.get(":".join(parts[:length]))) is not None:
            return f"line {line}: {problem}"
    return problem


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


def _components(opt: Options) -> Iterator[tuple[str, Registry, object]]:
    """Yield (key, registry, section) of every component that the options name."""
    yield "model_type", MODEL_REGISTRY, {"type": opt["model_type"]}
    for key, section in opt["datasets"].items():
        yield f"datasets:{key}", DATASET_REGISTRY, section
    for key, section in opt.items():
        if key.startswith("network_") and section is not None:
            yield key, ARCH_REGISTRY, section
    for key, section in (opt.get("train") or {}).items():
        if key.endswith("_opt") and section is not None:
            yield f"train:{key}", LOSS_REGISTRY, section
    for key, section in _metrics(opt).items():
        yield f"val:metrics:{key}", METRIC_REGISTRY, section


def _metrics(opt: Options) -> dict:
    metrics = (opt.get("val") or {}).get("metrics")
    return metrics if isinstance(metrics, dict) else {}


def _check_component(key: str, registry: Registry, section: object, plugins: Sequence[str]) -> None:
    if not isinstance(section, dict):
        raise UserError(f"{key}: expected options with a `type`, got {section!r}.")
    type_key = key if registry is MODEL_REGISTRY else f"{key}:type"
    component = _look_up(type_key, registry, section.get("type"), plugins)
    if registry in (ARCH_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY):
        arguments = {k: v for k, v in section.items() if k != "type"}
        given, extra = (GIVEN, ("better",)) if registry is METRIC_REGISTRY else ((), ())
        _check_arguments(key, component, arguments, given, extra)


def _look_up(key: str, registry: Registry, name: object, plugins: Sequence[str]) -> object:
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


def _check_arguments(
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
    try:
        return inspect.getsource(function).count(rest) > 1  # type: ignore[arg-type]
    except (OSError, TypeError):
        return True


def _check_direction(key: str, metric: dict) -> None:
    """Refuse a metric that would be taken for better the wrong way: BasicSR reads all but `lower` as `higher`."""
    if not isinstance(metric, dict):
        return
    check_choice(f"val:metrics:{key}:better", metric.get("better", HIGHER), (HIGHER, LOWER))
    function = _look_up(f"val:metrics:{key}:type", METRIC_REGISTRY, metric.get("type"), ())
    own = inspect.signature(function).parameters.get("better")  # type: ignore[arg-type]
    if own is not None and own.default == LOWER and "better" not in metric:
        raise UserError(f"val:metrics:{key}: better: is missing, which means higher. Add `better: lower`.")


def _number_checks(opt: Options) -> Iterator[Callable[[], object]]:
    for phase in opt["datasets"]:
        yield partial(check_choice, f"datasets:{phase}", phase.split("_")[0], PHASES[opt["is_train"]])
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
    if (keep := opt["logger"].get("keep_checkpoints")) is not None:
        counts["logger:keep_checkpoints"] = keep
    for key, value in counts.items():
        yield partial(_check_whole, key, value)
    for key, section in opt["train"].items():
        if key.startswith("optim_"):
            yield partial(_check_optimizer, f"train:{key}", section)
    yield partial(NonFiniteOptions.read, opt["train"].get("non_finite"))
    yield partial(_check_prefetch, opt)


def _check_whole(key: str, value: object) -> None:
    check_positive(key, value)
    if not float(value).is_integer():  # type: ignore[arg-type]
        raise UserError(f"{key}: expected a whole number, got {value!r}.")


def _check_optimizer(key: str, section: object) -> None:
    if not isinstance(section, dict):
        raise UserError(f"{key}: expected options with a `type`, got {section!r}.")
    known = [name for name, value in vars(torch.optim).items() if isinstance(value, type)]
    check_choice(f"{key}:type", section.get("type"), known)
    check_positive(f"{key}:lr", section.get("lr"))


def _check_prefetch(opt: Options) -> None:
    prefetch = opt["datasets"]["train"].get("prefetch_mode")
    check_choice("datasets:train:prefetch_mode", prefetch, (None, "cuda"))  # `cpu` hangs on a damaged image
    if prefetch == "cuda" and opt["num_gpu"] == 0:
        raise UserError("datasets:train:prefetch_mode: cuda needs a GPU, and none is used here. Remove it.")


def _path_checks(opt: Options) -> Iterator[Callable[[], object]]:
    for phase, dataset in opt["datasets"].items():
        for key, value in dataset.items():
            if key.startswith("dataroot_") and isinstance(value, str):
                yield partial(_check_exists, f"datasets:{phase}:{key}", value)
    for key, value in opt["path"].items():
        if key.startswith("pretrain_network_") and isinstance(value, str):
            yield partial(check_file, f"path:{key}", value)


def _check_exists(key: str, value: str) -> None:
    if not Path(value).expanduser().exists():
        raise UserError(
            f"{key}: the folder {value} does not exist (working directory: {Path.cwd()}). Set it to the data."
        )
