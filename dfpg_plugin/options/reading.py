"""Read an option YAML into the dictionary that BasicSR's builders and models expect, without executing anything."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from dfpg_plugin.checks import UserError, check_file, check_folder, close_names

Options = dict
SECTIONS = ("datasets", "path", "train", "val", "logger", "dist_params")
MOST_VALUES = 100_000


@dataclass(frozen=True)
class Arguments:
    """BasicSR's command-line arguments."""

    opt: str  # path of the YAML
    launcher: str = "none"  # none, pytorch, slurm
    auto_resume: bool = False
    debug: bool = False
    local_rank: int = 0  # of torch.distributed.launch; LOCAL_RANK in the environment goes before it
    force_yml: Sequence[str] = ()  # like train:ema_decay=0.999


class _Loader(yaml.SafeLoader):
    """A safe loader for which ``1e-4`` is a number, as in YAML 1.2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(text: str, source: str) -> object:
    """Parse YAML; raise UserError, naming ``source`` and the line, for what is not plain data."""
    try:
        return yaml.load(text, _Loader)
    except RecursionError as error:
        raise UserError(f"{source}: nested too deeply.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).split("\n")[0]
        raise UserError(f"{source}{where}: {problem}.") from error


def read_option_file(path: str) -> Options:
    """Read an option YAML; raise UserError where it is missing or not a mapping, or a key stands in it twice."""
    file, text = _read_text(path)
    opt = read_yaml(text, str(file))
    if not isinstance(opt, dict):
        raise UserError(f"{file}: expected options as `key: value`, got {type(opt).__name__}.")
    key_lines(path)  # which has checks of its own
    return opt


def key_lines(path: str) -> dict[str, int]:
    """Return the line of every key of an option YAML, by key paths such as ``train:optim_g:lr``.

    Raises UserError for a key that stands twice in a section, of which YAML would silently take the last, and for
    aliases that repeat more than :data:`MOST_VALUES` values, or themselves.
    """
    file, text = _read_text(path)
    root = yaml.compose(text, _Loader)
    if root is None:
        return {}
    if _expanded_size(root, {}, str(file)) > MOST_VALUES:
        raise UserError(f"{file}: its aliases repeat more than {MOST_VALUES} values. Write options without them.")
    lines: dict[str, int] = {}
    pending: list[tuple[str, yaml.Node]] = [("", root)]
    while pending:
        prefix, node = pending.pop()
        own: set[str] = set()
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            name, line = f"{prefix}{key.value}", key.start_mark.line + 1
            if name in own and key.value != "<<":
                raise UserError(
                    f"{file}, line {line}: {name} stands in line {lines[name]} already. Remove one of them."
                )
            own.add(name)
            lines[name] = line
            pending.append((f"{name}:", value))
    return lines


def with_line(problem: str, lines: Mapping[str, int]) -> str:
    """Put the line of the deepest key of the file before a problem that starts with a key path."""
    parts = problem.split(": ")[0].split(":")
    for length in range(len(parts), 0, -1):
        if (line := lines.get(":".join(parts[:length]))) is not None:
            return f"line {line}: {problem}"
    return problem


def _expanded_size(node: yaml.Node, sizes: dict[int, int], file: str) -> int:
    """Return how many values a node stands for; raise UserError for one that holds itself."""
    if id(node) in sizes:
        if sizes[id(node)] == 0:
            raise UserError(
                f"{file}, line {node.start_mark.line + 1}: an alias holds itself. Write options without it."
            )
        return sizes[id(node)]
    sizes[id(node)] = 0  # not known yet
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    sizes[id(node)] = 1 + sum(_expanded_size(child, sizes, file) for child in children)
    return sizes[id(node)]


def _read_text(path: str) -> tuple[Path, str]:
    file = check_file("-opt", path)
    try:
        return file, file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"-opt: {file} is not a text file in UTF-8.") from error


def force(opt: Options, entries: Sequence[str]) -> None:
    """Apply ``--force_yml`` entries such as ``train:optim_g:lr=1e-4`` to ``opt``; values are read as YAML.

    Raises UserError for an entry without ``=``, and for a section that is not there.
    """
    for entry in entries:
        keys, equals, value = entry.partition("=")
        parts = [part.strip() for part in keys.split(":")]
        if not equals or not all(re.fullmatch(r"[\w.-]+", part) for part in parts):
            raise UserError(f"--force_yml: expected key:subkey=value, got {entry!r}.")
        section = opt
        for part in parts[:-1]:
            if not isinstance(section.get(part), dict):
                raise UserError(f"--force_yml {entry}: there is no section {part!r}.{close_names(part, section)}")
            section = section[part]
        section[parts[-1]] = read_yaml(value, f"--force_yml {entry}")


def output_root(opt: Options) -> Path:
    """Return the folder that a run writes below: ``path:root``, or the working directory. Raises UserError."""
    path = opt.get("path")
    given = path.get("root") if isinstance(path, dict) else None
    return check_folder("path:root", given) if isinstance(given, str) else Path()


def complete(opt: Options, args: Arguments, root: Path, is_train: bool) -> Options:
    """Add what BasicSR's parser adds: phase, seed, device count, output paths under ``root``, debug mode, defaults.

    Unlike BasicSR's, the seed of ``--force_yml`` counts, and optional keys may be left out.
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
        opt["val"].setdefault("save_img", False)
        opt["val"].setdefault("suffix", None)
    (_complete_training if is_train else _complete_test)(opt, root)
    return opt


def _check_outline(opt: Options, source: str) -> None:
    """Raise UserError where the keys are missing, or sections are none, without which nothing else can be looked at."""
    for key in ("name", "model_type", "datasets"):
        if not opt.get(key):
            raise UserError(f"{source}: the key {key!r} is missing.{close_names(key, opt)}")
    for key in SECTIONS:
        if opt.get(key) is not None and not isinstance(opt[key], dict):
            raise UserError(f"{source}: {key}: expected options as `key: value`, got {opt[key]!r}.")
    if not isinstance(opt["name"], str) or "/" in opt["name"]:
        raise UserError(f"{source}: name: expected text without a slash, got {opt['name']!r}.")


def _complete_paths(path: dict) -> dict:
    given = {key: value for key, value in path.items() if value is not None}
    for key, value in given.items():
        if isinstance(value, str) and ("pretrain_network" in key or key == "resume_state"):
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
    logger = opt["logger"] = opt.get("logger") or {}
    logger.setdefault("print_freq", 100)
    logger.setdefault("save_checkpoint_freq", 5000)
    logger.setdefault("use_tb_logger", False)
    train_set = opt["datasets"]["train"]
    train_set.setdefault("num_worker_per_gpu", 0)
    if opt["debug"]:  # not by the name, as in BasicSR, for which "undebugged" is one
        logger.update(print_freq=1, save_checkpoint_freq=8)
        if opt.get("val") is not None:
            opt["val"]["val_freq"] = 8


def _complete_test(opt: Options, root: Path) -> None:
    folder = root / "results" / opt["name"]
    opt["path"].update(results_root=str(folder), log=str(folder), visualization=str(folder / "visualization"))
    if opt.get("val") is None:
        opt["val"] = {"save_img": True, "suffix": None}
