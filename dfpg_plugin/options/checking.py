"""Check options before anything is built: component names and arguments, numbers, files and folders."""

import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from basicsr.utils.registry import (
    ARCH_REGISTRY,
    DATASET_REGISTRY,
    LOSS_REGISTRY,
    METRIC_REGISTRY,
    MODEL_REGISTRY,
    Registry,
)
from pydantic import ValidationError

from dfpg_plugin.checks import LOWER_IS_BETTER, UserError, check_choice, check_file
from dfpg_plugin.options import schema
from dfpg_plugin.options.completing import section_of_data_set, typed_part
from dfpg_plugin.options.components import check_arguments, look_up, source_of
from dfpg_plugin.options.curves import check_curves
from dfpg_plugin.options.keys import unknown_keys
from dfpg_plugin.options.reading import Options, key_of, with_line
from dfpg_plugin.options.schema import HIGHER, LOWER
from dfpg_plugin.options.section import Section, mistakes_in

GROUND_TRUTH = "img2"  # a metric's parameter for the ground truth, as BasicSR names it
GIVEN = ("img", GROUND_TRUTH)  # the parameters of a metric that the model passes
PHASES = {True: ("train", "val"), False: ("test", "val")}  # by opt["is_train"]


class OptionsError(UserError):
    """All mistakes in an option file, each on a line that names its key."""

    def __init__(self, problems: Sequence[str]) -> None:
        head = "" if len(problems) == 1 else f"{len(problems)} mistakes in the options:\n  "
        super().__init__(head + "\n  ".join(problems))


def check_options(
    opt: Options, plugins: Sequence[str], needs_network: bool = True, lines: Mapping[str, int] | None = None
) -> None:
    """Raise OptionsError, with all mistakes at once, if completed options would fail later.

    ``plugins``: the names of the loaded plugins, for messages. ``needs_network``: whether a test needs trained weights.
    ``lines``: the line of each key in the option file, by key path. The error names the line of each mistake.
    """
    problems = [*_not_numbers(opt, ""), *_wrong_values(opt)]
    for check in _checks(opt, plugins, needs_network):
        try:
            check()
        except UserError as error:
            problems.append(str(error))
    problems += unknown_keys(opt)
    if problems:
        first_of_key: dict[str, str] = {}
        for problem in problems:
            first_of_key.setdefault(key_of(problem), problem)
        raise OptionsError([with_line(problem, lines or {}) for problem in first_of_key.values()])


def _wrong_values(opt: Options) -> Iterator[str]:
    """Yield a line for every value that the schema, or the ``Options`` of a data set's class, does not take.

    :func:`complete` copies ``manual_seed`` into data sets. A wrong ``manual_seed`` is reported once.
    """
    problems = [*_mistakes_of(schema.Options, typed_part(opt))]
    if not opt["is_train"]:
        problems += _mistakes_of(schema.TrainingStep, opt.get("train") or {}, "train")
    for key, options in opt["datasets"].items():
        is_known = key.split("_")[0] in PHASES[opt["is_train"]] and isinstance(options, dict)
        if is_known and (section := section_of_data_set(options.get("type"))) is not None:
            problems += _mistakes_of(section, options, "datasets", key)
    manual_seed_is_wrong = any(key_of(problem) == "manual_seed" for problem in problems)
    for problem in problems:
        if not (manual_seed_is_wrong and re.fullmatch("datasets:.*:seed", key_of(problem))):
            yield problem


def _mistakes_of(section: type[Section], values: Mapping, *above: str) -> Iterator[str]:
    try:
        section.model_validate(values)
    except ValidationError as error:
        yield from mistakes_in(error, *above)


def _not_numbers(section: Mapping, prefix: str) -> Iterator[str]:
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _not_numbers(value, f"{prefix}{key}:")
        elif isinstance(value, float) and math.isnan(value):
            yield f"{prefix}{key}: expected a value, got nan, which is not a number."


def _checks(opt: Options, plugins: Sequence[str], needs_network: bool) -> Iterator[Callable[[], object]]:
    """Yield functions. Each raises UserError if the options have a mistake of one kind."""
    for key, registry, section in _components(opt):
        yield partial(_check_component, key, registry, section, plugins)
    for key, metric in metrics_of(opt).items():
        yield partial(_check_direction, key, metric)
    for phase in opt["datasets"]:
        yield partial(check_choice, f"datasets:{phase}", phase.split("_")[0], PHASES[opt["is_train"]])
    if opt["is_train"]:
        yield from _training_checks(opt)
    yield from _path_checks(opt)
    yield partial(_check_phase, opt, needs_network)
    yield partial(_check_device, opt, plugins)


def _check_phase(opt: Options, needs_network: bool) -> None:
    if needs_network and not opt["is_train"] and opt["path"].get("pretrain_network_g") is None:
        raise UserError("path:pretrain_network_g: missing, so there is nothing to test. Name the trained weights.")
    if opt["is_train"] and (opt.get("val") or {}).get("set_metrics"):
        raise UserError("val:set_metrics: measured by `basicsr test` only. Remove it from the training's options.")


def _check_device(opt: Options, plugins: Sequence[str]) -> None:
    """Raise UserError if no GPU is used and the constructor of the model needs one, as those of Real-ESRGAN do."""
    model = look_up("model_type", MODEL_REGISTRY, opt["model_type"], plugins)
    constructors = [vars(base)["__init__"] for base in inspect.getmro(model) if "__init__" in vars(base)]
    if opt["num_gpu"] == 0 and any(".cuda()" in source_of(constructor) for constructor in constructors):
        raise UserError(
            f"model_type: {opt['model_type']} needs a GPU, because its constructor calls .cuda(). No GPU is used here. "
            "On a CPU its networks train under SRModel, SRGANModel or ESRGANModel, with pairs of images."
        )


def _components(opt: Options) -> Iterator[tuple[str, Registry, object]]:
    """Yield (key path, registry, section) of every component that the options name."""
    yield "model_type", MODEL_REGISTRY, {"type": opt["model_type"]}
    for key, section in opt["datasets"].items():
        yield f"datasets:{key}", DATASET_REGISTRY, section
    for key, section in opt.items():
        if key.startswith("network_") and section is not None:
            yield from _with_inner_networks(key, ARCH_REGISTRY, section)
    for key, section in (opt.get("train") or {}).items():
        if key.endswith("_opt") and section is not None:
            yield from _with_inner_networks(f"train:{key}", LOSS_REGISTRY, section)
    for key, section in metrics_of(opt).items():
        yield f"val:metrics:{key}", METRIC_REGISTRY, section


def _with_inner_networks(key: str, registry: Registry, section: object) -> Iterator[tuple[str, Registry, object]]:
    """Yield a component, and the networks in its own options, such as ``network_g:network`` of AdaptedNet."""
    yield key, registry, section
    options = section if isinstance(section, dict) else {}
    for name, inner in options.items():
        if str(name).startswith("network") and isinstance(inner, dict):
            yield from _with_inner_networks(f"{key}:{name}", ARCH_REGISTRY, inner)


def metrics_of(opt: Options) -> dict:
    """Return the options of each metric, by name. Without metrics, or for a value of another kind, return {}."""
    metrics = (opt.get("val") or {}).get("metrics")
    return metrics if isinstance(metrics, dict) else {}


def _check_component(key: str, registry: Registry, section: object, plugins: Sequence[str]) -> None:
    if not isinstance(section, dict):
        raise UserError(f"{key}: expected options with a `type`, got {section!r}.")
    type_key = key if registry is MODEL_REGISTRY else f"{key}:type"
    component = look_up(type_key, registry, section.get("type"), plugins)
    if registry in (ARCH_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY):
        arguments = {k: v for k, v in section.items() if k != "type"}
        given, extra = (GIVEN, ("better",)) if registry is METRIC_REGISTRY else ((), ())
        check_arguments(key, component, arguments, given, extra)


def _check_direction(key: str, metric: object) -> None:
    """Raise UserError if BasicSR would keep the worst value of a metric as the best one.

    BasicSR takes a missing ``better`` for ``higher``, and every value but ``higher`` for ``lower``.
    """
    if not isinstance(metric, dict):
        return
    function = look_up(f"val:metrics:{key}:type", METRIC_REGISTRY, metric.get("type"))
    if "better" in metric and metric["better"] is None:
        raise UserError(
            f"val:metrics:{key}:better: has no value, and BasicSR takes this for {LOWER}. Write {HIGHER} or {LOWER}."
        )
    own = inspect.signature(function).parameters.get("better")
    is_lower = metric["type"] in LOWER_IS_BETTER or (own is not None and own.default == LOWER)
    if is_lower and "better" not in metric:
        raise UserError(f"val:metrics:{key}: better: is missing, so BasicSR assumes {HIGHER}. Add `better: {LOWER}`.")


def _training_checks(opt: Options) -> Iterator[Callable[[], object]]:
    train_set = opt["datasets"]["train"]
    yield partial(_check_one_training_set, opt["datasets"])
    yield partial(_check_given, "datasets:train:batch_size_per_gpu", train_set)
    if opt.get("val") is not None:
        yield partial(_check_given, "val:val_freq", opt["val"])
    for key, section in opt["train"].items():
        if key.startswith("optim_") and isinstance(section, dict):
            yield partial(_check_optimizer, f"train:{key}:type", section.get("type"))
    yield partial(_check_prefetch, opt)
    yield partial(_check_workers, train_set)
    yield partial(check_curves, opt)


def _check_one_training_set(datasets: Mapping) -> None:
    others = [key for key in datasets if key != "train" and key.split("_")[0] == "train"]
    if others:
        raise UserError(f"datasets:{others[0]}: a training has one set, `train`. Remove it, or join the two folders.")


def _check_given(key: str, section: Mapping) -> None:
    if section.get(key.rpartition(":")[2]) is None:
        raise UserError(f"{key}: is missing. A training needs it.")


def _check_optimizer(key: str, name: object) -> None:
    if name is not None:  # the schema says where it is missing
        check_choice(key, name, [known for known, value in vars(torch.optim).items() if isinstance(value, type)])


def _check_prefetch(opt: Options) -> None:
    prefetch_mode = opt["datasets"]["train"].get("prefetch_mode")
    if prefetch_mode == "cpu":
        raise UserError(
            "datasets:train:prefetch_mode: BasicSR's mode cpu hangs at a damaged image. Write cuda, or remove it."
        )
    if prefetch_mode == "cuda" and opt["num_gpu"] == 0:
        raise UserError("datasets:train:prefetch_mode: cuda needs a GPU, and none is used here. Remove it.")


def _check_workers(train_set: dict) -> None:
    if train_set.get("persistent_workers") and not train_set["num_worker_per_gpu"]:
        raise UserError(
            "datasets:train:persistent_workers: needs workers, and num_worker_per_gpu is 0. Raise num_worker_per_gpu, "
            "or remove persistent_workers."
        )


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
