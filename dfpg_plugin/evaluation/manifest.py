"""The manifest of an evaluation, ``evaluation.json``: everything that is needed to understand its numbers."""

import hashlib
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch.utils.data import Dataset

from dfpg_plugin import __version__
from dfpg_plugin.evaluation.planning import Plan, SetPlan
from dfpg_plugin.evaluation.records import FORMAT
from dfpg_plugin.evaluation.set_metrics import describe_set_metrics
from dfpg_plugin.files import sha256_of
from dfpg_plugin.metrics.batches import better_by_default, networks_used, settings_of
from dfpg_plugin.options.completing import RunOptions
from dfpg_plugin.options.reading import Options
from dfpg_plugin.options.schema import Val

PACKAGES = (
    *("torch", "torchvision", "basicsr", "numpy", "scipy", "numba", "opencv-python", "Pillow", "scikit-image", "lpips"),
    *("dlib-bin", "facexlib", "pyiqa"),
)
INFERENCE = ("pad_to", "tile", "tile_overlap", "amp", "winograd")  # keys of `val` that change the restored images
# an evaluation that was stopped goes on only if the values of these keys are unchanged
UNCHANGED = ("format", "name", "software", "commit", "batch_size", "pictures", "inputs", "method", "metrics", "sets")


def describe(options: RunOptions, plan: Plan, workers: int) -> dict:
    """Return the manifest of an evaluation that starts now."""
    opt, val = options.plain, options.sections.val or Val()
    metrics = {key: _describe_metric(metric) for key, metric in (opt["val"].get("metrics") or {}).items()}
    return {
        "format": FORMAT,
        "name": opt["name"],
        "command": shlex.join(["basicsr", *sys.argv[1:]]),
        "option_file": {"file": str(options.file.path), "sha256": sha256_of(options.file.path)},
        "started": now(),
        "finished": None,
        "software": software(),
        "commit": commit(),
        "machine": {"device": _device(opt), "workers": workers},
        "batch_size": val.batch_size,
        "pictures": {key: opt["val"][key] for key in ("save_img", "suffix")},
        "inputs": {set_plan.name: _digest_of_files(set_plan) for set_plan in plan.sets},
        "method": _describe_method(opt, plan),
        "metrics": {**metrics, **describe_set_metrics(plan.set_metrics)},
        "sets": {set_plan.name: _describe_set(set_plan.dataset) for set_plan in plan.sets},
    }


def goes_on(earlier: Mapping, manifest: Mapping) -> bool:
    """Tell whether ``earlier`` is the manifest of the same evaluation, and this evaluation was stopped."""
    if "finished" not in earlier or earlier["finished"] is not None:
        return False
    same_device = (earlier.get("machine") or {}).get("device") == manifest["machine"]["device"]
    return same_device and all(earlier.get(key) == _as_json(manifest[key]) for key in UNCHANGED)


def now() -> str:
    """Return the time in UTC, to the second, for example ``2026-01-31T12:00:00+00:00``."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def software() -> dict[str, str | None]:
    """Return the version of each package that may change the numbers; None if the package is not installed."""
    return {"dfpg_plugin": __version__, "python": sys.version.split()[0], **{name: _version(name) for name in PACKAGES}}


def commit() -> str | None:
    """Return this package's commit, for example ``201ff70aa41c``; None without a repository.

    If files were changed, a digest of the changes follows: ``201ff70aa41c-dirty-1c0ffee2``.
    """
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None

    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=True).stdout

    try:
        changes = git("diff", "HEAD", "--", "dfpg_plugin")
        name = git("rev-parse", "--short=12", "HEAD").decode().strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{name}-dirty-{hashlib.sha256(changes).hexdigest()[:8]}" if changes else name


def _describe_metric(metric: Mapping) -> dict:
    return {
        "type": metric["type"],
        "better": metric.get("better", better_by_default(metric)),
        "of": "image",
        "settings": _as_json(settings_of(metric)),
        "uses": networks_used(metric),
    }


def _describe_set(dataset: Dataset) -> dict:
    return {"count": len(dataset), "options": _as_json(dataset.opt)}  # type: ignore[arg-type,attr-defined]


def _describe_method(opt: Options, plan: Plan) -> dict:
    if plan.restoring is None:
        return {"images": plan.images, "model_type": None, "network_g": None, "parameters": None, "weights": None}
    path = opt["path"]["pretrain_network_g"]
    net = getattr(plan.restoring.model, "net_g", None)
    return {
        "images": plan.images,
        "model_type": opt["model_type"],
        "network_g": _as_json(opt["network_g"]),
        "parameters": None if net is None else sum(p.numel() for p in net.parameters()),
        "weights": {"file": path, "sha256": sha256_of(path), "param_key": opt["path"].get("param_key_g", "params")},
        "inference": {key: opt["val"].get(key) for key in INFERENCE},
    }


def _digest_of_files(set_plan: SetPlan) -> str:
    """Return a digest of the names, sizes and times of all files that are read: the set's, and a folder's images."""
    digest = hashlib.sha256()
    for file in sorted([*set_plan.files, *set_plan.source.files]):
        size_and_time = None
        if os.path.exists(file):
            facts = os.stat(file)
            size_and_time = (facts.st_size, facts.st_mtime_ns)
        digest.update(os.fsencode(f"{file} {size_and_time}\n"))
    return digest.hexdigest()


def _device(opt: Options) -> str:
    return torch.cuda.get_device_name() if opt["num_gpu"] and torch.cuda.is_available() else "CPU"


def _as_json(value: object) -> object:
    """Return the value as it is after it is written as JSON and read again. Other objects become text."""
    if isinstance(value, Mapping):
        return {str(key): _as_json(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(v) for v in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
