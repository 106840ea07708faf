"""Load a network that restores: from a file that carries the network's options, or with a training's option file."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from basicsr.archs import build_network
from torch import nn

from dfpg_plugin.checks import UserError, check_file
from dfpg_plugin.files import CONTAINERS, SHIPPED, check_finite, is_safetensors, load_weights, read_safetensors
from dfpg_plugin.models.priors import sized_to_prior
from dfpg_plugin.options.plugins import load_plugins
from dfpg_plugin.options.reading import read_option_file
from dfpg_plugin.weight_names import CHANNEL_ATTENTION, load_into, of_exported_file, with_fitting_names

# keys and values of a safetensors file's metadata
OPTIONS = "network_g"  # the network's options as JSON
ATTENTION = "network_d"  # the discriminator's options as JSON, if the file holds its channel attention too
PRECISION, HALF = "precision", "half"  # the weights are stored in half precision
SEES, GREY = "sees", "grey"  # the network was trained on grey pictures only


def load_network(
    weights: str | Path | None = None, option_file: str | Path | None = None, device: str = "cpu"
) -> nn.Module:
    """Return a network that restores faces, in eval mode and with ``requires_grad`` off.

    The package's own network and DFPGNet map RGB (B,3,H,W), float in [0,1], H and W from 16, to the same shape and
    range. Each image is one face, about 128 px wide. Example: ``restored = load_network()(blurred)``.

    ``weights``: a safetensors file of ``basicsr export``, or a training's .pth. None: the package's own network.
    ``option_file``: the training's YAML. A .pth needs the YAML unless the .pth still lies in the folder of its run.
    ``device``: ``cpu``, ``cuda``, ``cuda:N``, or ``auto`` for a GPU if there is one.
    Raises UserError, naming the file or option, for files that are missing or do not fit, and for a missing device.
    :class:`DFPGRestorer` also finds the faces of a photograph.
    """
    return load_described(weights, option_file)[0].to(choose_device(device))


def load_described(weights: str | Path | None, option_file: str | Path | None) -> tuple[nn.Module, dict[str, str]]:
    """Return a network in eval mode on the CPU, and facts about the network as text by key.

    The arguments are those of :func:`load_network`. The facts are the file's metadata, ``weights``, the path of the
    file, and ``network_g``, the options as JSON. Raises UserError as :func:`load_network` does.
    """
    path = SHIPPED if weights is None else check_file("--weights", weights)
    if is_safetensors(path):
        state, about = read_safetensors(path)
        check_finite(path, state)
        options = read_options_of(option_file, OPTIONS) if option_file else _options_of(path, about)
    else:
        (state, _), about = load_weights(path, CONTAINERS), {}
        options = read_options_of(option_file or str(_option_file_beside(path)), OPTIONS)
    network = build(options)
    if is_safetensors(path):
        state = of_exported_file(network, state)
    load_into(network, with_fitting_names(network, state, path), path)
    about = {**about, "weights": str(path), OPTIONS: json.dumps(options)}
    for key in (ATTENTION, PRECISION):  # true of the file, but not of the loaded network
        about.pop(key, None)
    return network.requires_grad_(False).eval(), about


def load_attention(weights: str | Path | None) -> nn.ModuleList | None:
    """Return the discriminator's channel attention, a module for each prior layer; None if the file holds none.

    Raises UserError, naming the file, for weights that do not fit the discriminator's options in the file.
    """
    path = SHIPPED if weights is None else Path(weights).expanduser()
    if not is_safetensors(path):
        return None
    state, about = read_safetensors(path)
    if ATTENTION not in about:
        return None
    try:
        discriminator = build(json.loads(about[ATTENTION]))
        attention: nn.ModuleList = discriminator.channel_attention  # type: ignore[assignment]
        found = of_exported_file(discriminator, state)
        attention.load_state_dict({name.removeprefix(CHANNEL_ATTENTION): value for name, value in found.items()})
    except (RuntimeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: its channel attention does not fit the options under {ATTENTION}.") from error
    return attention.requires_grad_(False)


def build(options: Mapping) -> nn.Module:
    """Build a registered network, ``{"type": "DFPGNet", "num_feat": 64}``. Raises UserError for wrong options."""
    try:
        return build_network(dict(options))
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"network_g: can't be built with {dict(options)}: {error}") from error


def read_options_of(option_file: str | Path, network: str) -> dict:
    """Return the options of a network, such as ``network_g``, from an option file. Loads the file's plugins.

    Raises UserError, naming the file, if the options are missing.
    """
    opt = read_option_file(str(option_file))
    load_plugins(opt.get("plugins") or [])
    options = opt.get(network)
    if isinstance(options, dict):
        options = sized_to_prior(opt, [network])[network]
    if not isinstance(options, dict):
        raise UserError(f"{option_file}: {network}: missing. Name the option file of the network's training.")
    return options


def _options_of(path: Path, about: Mapping[str, str]) -> dict:
    try:
        options = json.loads(about.get(OPTIONS, "null"))
    except ValueError:
        options = None
    if not isinstance(options, dict):
        raise UserError(f"{path} does not say what network it holds. Name its option file with -opt.")
    return options


def _option_file_beside(path: Path) -> Path:
    """Return the option file that the training has written into the folder above the weights' folder ``models``."""
    found = sorted(path.resolve().parent.parent.glob("*.yml")) if path.resolve().parent.name == "models" else []
    if len(found) != 1:
        raise UserError(f"{path}: which network is it? Name the option file of its training with -opt.")
    return found[0]


def choose_device(name: str) -> torch.device:
    """Return the device of a name. ``auto`` is a GPU if there is one. Raises UserError for a device that is missing."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"--device {name}: is not there ({reason[:100]}). Use cpu, or auto.") from error
    return device
