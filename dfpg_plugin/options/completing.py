"""Complete options, in two forms: the dictionary that BasicSR's classes read, and typed sections."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from basicsr.utils.dist_util import get_dist_info
from basicsr.utils.registry import DATASET_REGISTRY
from typing_extensions import Self

from dfpg_plugin.checks import UserError, check_folder, close_names
from dfpg_plugin.files import weights_file
from dfpg_plugin.options import schema
from dfpg_plugin.options.components import find
from dfpg_plugin.options.reading import OptionFile, Options
from dfpg_plugin.options.section import Section, whole_numbers

SECTIONS = ("datasets", "path", "train", "val", "logger", "dist_params")
# keys that BasicSR reads without a default
LOGGER_KEYS = ("print_freq", "save_checkpoint_freq", "use_tb_logger")
VALIDATION_KEYS = ("save_img", "suffix")
DEBUG_PRINT_FREQ, DEBUG_SAVE_FREQ = 1, 8  # BasicSR's values with --debug


@dataclass(frozen=True)
class Arguments:
    """BasicSR's command-line arguments."""

    opt: str  # path of the YAML
    launcher: str = "none"  # none, pytorch, slurm
    auto_resume: bool = False
    debug: bool = False
    local_rank: int = 0  # from torch.distributed.launch; LOCAL_RANK in the environment overrides this value
    force_yml: Sequence[str] = ()  # such as train:ema_decay=0.999


@dataclass(frozen=True)
class RunOptions:
    """The checked options of a run. Nobody writes into them."""

    file: OptionFile
    plain: Options  # the dictionary for BasicSR's classes
    sections: schema.Options  # the same options, typed
    rank: int  # of this process
    world_size: int  # the number of processes
    seed_is_drawn: bool = False  # whether `manual_seed` was drawn, as neither the file nor --force_yml gives one

    @classmethod
    def of(cls, file: OptionFile, opt: Options, seed_is_drawn: bool = False) -> Self:
        """Return completed options with this process's rank. Raises UserError if the schema does not take them."""
        rank, world_size = get_dist_info()
        plain = {**opt, "rank": rank, "world_size": world_size}
        sections = schema.Options.read(str(file.path), typed_part(opt))
        return cls(file, plain, sections, rank, world_size, seed_is_drawn)

    def with_seed(self, seed: int) -> Self:
        """Return the same options with ``seed`` as ``manual_seed``, also in the data sets that have no own seed."""
        plain, before = {**self.plain, "manual_seed": seed}, self.plain["manual_seed"]
        plain["datasets"] = {
            key: {**options, "seed": seed} if options.get("seed") == before else options
            for key, options in self.plain["datasets"].items()
        }
        return replace(self, plain=plain, sections=schema.Options.read(str(self.file.path), typed_part(plain)))

    def with_paths(self, paths: dict) -> Self:
        """Return the same options with ``paths`` as the section ``path``."""
        plain = {**self.plain, "path": paths}
        return replace(self, plain=plain, sections=schema.Options.read(str(self.file.path), plain))

    @property
    def train(self) -> schema.Train:
        """Return the section ``train``. Raises UserError if there is none."""
        if self.sections.train is None:
            raise UserError(f"{self.file.path}: the key 'train' is missing.")
        return self.sections.train

    @property
    def folder(self) -> Path:
        """Return the folder that the run writes to: ``experiments/<name>`` or ``results/<name>``."""
        path = self.plain["path"]
        return Path(path["experiments_root"] if self.plain["is_train"] else path["results_root"])


def convert_whole_numbers(opt: Options) -> list[str]:
    """Replace whole numbers that are written like fractions, such as ``2.0`` or ``1e3``. Return their key paths.

    Changes ``opt``. Python takes such a number neither as a size nor as a count.
    """
    found = [*whole_numbers(schema.Options, opt)]
    for _, options, key, number in found:
        options[key] = number
    return [path for path, *_ in found]


def section_of_data_set(name: object) -> type[schema.DataSetKeys] | None:
    """Return the class ``Options`` of the data set that is registered as ``name``, or None if it has none."""
    found = getattr(find(DATASET_REGISTRY, name), "Options", None)
    return found if isinstance(found, type) and issubclass(found, schema.DataSetKeys) else None


def typed_part(opt: Options) -> Options:
    """Return the part of completed options that :class:`schema.Options` checks: all, but no ``train`` in a test.

    A test's section ``train`` may be incomplete.
    """
    return opt if opt["is_train"] else {key: value for key, value in opt.items() if key != "train"}


def output_root(opt: Options) -> Path:
    """Return the folder below which a run writes: ``path:root``, or the working directory.

    Raises UserError if ``path:root`` is no folder.
    """
    path = opt.get("path")
    given = path.get("root") if isinstance(path, dict) else None
    return check_folder("path:root", given) if isinstance(given, str) else Path()


def complete(opt: Options, args: Arguments, root: Path, is_train: bool) -> Options:
    """Complete ``opt`` in place as BasicSR's parser does, and return it.

    The parser adds phases, a seed, the number of GPUs, output paths below ``root``, and the settings of ``--debug``.
    Unlike BasicSR, this function takes a seed from ``--force_yml``, and adds the defaults of optional keys. Raises
    UserError if a needed key is missing.
    """
    _check_outline(opt, args.opt)
    opt.update(is_train=is_train, auto_resume=args.auto_resume, dist=args.launcher != "none", root_path=str(root))
    opt["debug"] = args.debug
    if args.debug and not opt["name"].startswith("debug"):
        opt["name"] = f"debug_{opt['name']}"
    if opt.get("manual_seed") is None:
        opt["manual_seed"] = random.randint(1, 10000)
    if opt.setdefault("num_gpu", "auto") == "auto":
        opt["num_gpu"] = torch.cuda.device_count()
    for name, dataset in opt["datasets"].items():
        _complete_dataset(opt, name, dataset)
    opt["path"] = _complete_paths(opt.get("path") or {})
    if opt.get("val") is not None:
        _set_defaults(opt["val"], schema.Val, VALIDATION_KEYS)
    if is_train:
        _complete_training(opt, root)
    else:
        _complete_test(opt, root)
    return opt


def _check_outline(opt: Options, source: str) -> None:
    """Raise UserError if a section is no mapping, or a key is missing without which nothing else can be checked."""
    for key in ("name", "model_type", "datasets"):
        if not opt.get(key):
            raise UserError(f"{source}: the key {key!r} is missing.{close_names(key, opt)}")
    for key in SECTIONS:
        if opt.get(key) is not None and not isinstance(opt[key], dict):
            raise UserError(f"{source}: {key}: expected options as `key: value`, got {opt[key]!r}.")
    if not isinstance(opt["name"], str) or "/" in opt["name"]:
        raise UserError(f"{source}: name: expected text without a slash, got {opt['name']!r}.")


def _set_defaults(values: dict, section: type[Section], keys: Sequence[str]) -> None:
    """Write the schema's defaults for ``keys`` that have no value."""
    for key in keys:
        if values.get(key) is None:
            values[key] = section.model_fields[key].default


def _complete_paths(path: dict) -> dict:
    given = {key: value for key, value in path.items() if value is not None}
    for key, value in given.items():
        if isinstance(value, str) and "pretrain_network" in key:
            given[key] = str(weights_file(value))
        elif isinstance(value, str) and key == "resume_state":
            given[key] = str(Path(value).expanduser())
    return {"resume_state": None, **given}


def _complete_dataset(opt: Options, name: str, dataset: object) -> None:
    if not isinstance(dataset, dict):
        raise UserError(f"datasets:{name}: expected the data set's options, got {dataset!r}.")
    dataset["phase"] = name.split("_")[0]
    dataset.setdefault("name", name)
    if "scale" in opt:
        dataset["scale"] = opt["scale"]
    for key in ("dataroot_gt", "dataroot_lq"):
        if isinstance(dataset.get(key), str):
            dataset[key] = str(Path(dataset[key]).expanduser())
    if dataset["phase"] == "train":
        dataset.setdefault("seed", opt["manual_seed"])


def _complete_training(opt: Options, root: Path) -> None:
    for key, section in (("train", opt["datasets"]), ("train", opt), ("total_iter", opt.get("train") or {})):
        if section.get(key) is None:
            raise UserError(f"options: the key {key!r} is missing.{close_names(key, section)}")
    folder = root / "experiments" / opt["name"]
    opt["path"].update(
        experiments_root=str(folder),
        models=str(folder / "models"),
        training_states=str(folder / "training_states"),
        log=str(folder),
        visualization=str(folder / "visualization"),
    )
    if "ema_decay" in opt["train"]:
        _set_defaults(opt["train"], schema.Train, ("ema_decay",))  # BasicSR compares the value with 0
    logger = opt["logger"] = opt.get("logger") or {}
    _set_defaults(logger, schema.Logger, LOGGER_KEYS)
    _set_defaults(opt["datasets"]["train"], schema.DataSet, ("num_worker_per_gpu",))
    if opt["debug"]:  # not by the name: for BasicSR, a run called "undebugged" is a debugging run
        logger.update(print_freq=DEBUG_PRINT_FREQ, save_checkpoint_freq=DEBUG_SAVE_FREQ)
        if opt.get("val") is not None:
            opt["val"]["val_freq"] = DEBUG_SAVE_FREQ


def _complete_test(opt: Options, root: Path) -> None:
    folder = root / "results" / opt["name"]
    opt["path"].update(results_root=str(folder), log=str(folder), visualization=str(folder / "visualization"))
    if opt.get("val") is None:
        opt["val"] = {"save_img": True, "suffix": None}
