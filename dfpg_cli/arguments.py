"""The parser of all commands, and BasicSR's flags, which ``basicsr train`` and ``basicsr test`` share."""

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RENAMED = {"--output": "--out"}  # an option's earlier name, which is still accepted, and its name now
NEGATIVE_LIST = re.compile(r"-[\d.]+(,-?[\d.]+)+")  # such as -10,20,150,200
MOST_PORT = 65535
SINGULAR = {"boxes": "box"}  # the parsed arguments hold the values of --box under `boxes`
DETECTOR_WEIGHTS = "folder of facexlib's network, if facexlib does not keep it itself"  # help of --detector-weights


class Parser(argparse.ArgumentParser):
    """A parser of the ``basicsr`` command, which accepts several spellings of an option.

    The help shows one spelling. Hyphens and underscores are equal: ``--per_size`` means ``--per-size``. The earlier
    names in :data:`RENAMED` are accepted. Every command has ``--traceback``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 argparse's own
        super().__init__(*args, **kwargs)
        self.output: str | None = None
        # without a default: a subcommand's default would replace a --traceback before the subcommand's name
        text = "show the Python traceback of an error"
        self.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS, help=text)

    def add_output(self, name: str, metavar: str, help: str) -> None:
        """Add ``-o`` and ``--out``. The path is also accepted without a flag, as in earlier versions."""
        self.output = name
        self.add_argument("-o", "--out", dest=name, type=Path, metavar=metavar, help=help)
        self.add_argument(f"{name}_alone", nargs="?", type=Path, metavar=metavar, help=argparse.SUPPRESS)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # noqa: ANN401 argparse's own
        """Parse arguments in any accepted spelling. Exit with status 2 if the output is missing or named twice."""
        given = list(sys.argv[1:] if args is None else args)
        end = given.index("--") if "--" in given else len(given)
        given[:end] = _with_negative_values(list(map(self._declared, given[:end])))
        found, rest = super().parse_known_args(given, namespace)
        if self.output is not None:
            self._settle_output(found, rest)
        return found, rest

    def _declared(self, argument: str) -> str:
        """Return an argument in the declared spelling: ``--per-size=3`` for ``--per_size=3``."""
        name, equals, value = argument.partition("=")
        known = self._option_string_actions
        if not name.startswith("--") or name in known:
            return argument
        for spelling in (name.replace("_", "-"), "--" + name[2:].replace("-", "_"), RENAMED.get(name, name)):
            if any(option.startswith(spelling) for option in known):  # argparse accepts the beginning of an option
                return f"{spelling}{equals}{value}"
        return argument

    def _settle_output(self, found: argparse.Namespace, rest: list[str]) -> None:
        """Put the output, with or without its flag, under one name. Exit unless it is named once."""
        name = str(self.output)
        alone, flagged = vars(found).pop(f"{name}_alone"), getattr(found, name)
        if alone is None and rest and not rest[0].startswith("-"):  # argparse skips an optional path behind an option
            alone = Path(rest.pop(0))
        if alone is not None and flagged is not None:
            self.error("name the output once, with -o/--out")
        if alone is None and flagged is None:
            self.error("the output is missing. Name it with -o/--out")
        vars(found)[name] = alone or flagged


def flag_of(name: str) -> str:
    """Return the option whose value the parsed arguments hold under ``name``: ``--face-size`` for ``face_size``."""
    return f"--{SINGULAR.get(name, name).replace('_', '-')}"


def refuse(args: argparse.Namespace, names: Iterable[str], where: str) -> None:
    """Raise UserError for the first given option of ``names``. ``where`` tells when it has no effect: ``on films``."""
    from dfpg_plugin.checks import UserError

    for name in names:
        if getattr(args, name) is not None:
            raise UserError(f"{flag_of(name)}: has no effect {where}. Remove it.")


def _with_negative_values(arguments: list[str]) -> list[str]:
    """Join an option and its list of numbers if the first is negative: argparse takes ``-10,20`` for an option."""
    joined: list[str] = []
    for argument in arguments:
        if NEGATIVE_LIST.fullmatch(argument) and joined and re.fullmatch(r"--[\w-]+", joined[-1]):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def port(text: str) -> int:
    """Read the number of a port, for argparse."""
    number = from_1(text)
    if number > MOST_PORT:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to {MOST_PORT}, got {text}")
    return number


def from_1(text: str) -> int:
    """Read a whole number from 1, for argparse."""
    return _whole(text, 1)


def from_0(text: str) -> int:
    """Read a whole number from 0, for argparse."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number from {least}, got {text}")
    return int(text)


def add_basicsr_arguments(parser: argparse.ArgumentParser) -> None:
    """Add BasicSR's flags, under BasicSR's names."""
    parser.add_argument("-opt", "--opt", required=True, metavar="YAML", help="the option file")
    text = "what starts the processes of a run on several GPUs: torchrun (pytorch) or srun (slurm) (default: none)"
    parser.add_argument("--launcher", choices=("none", "pytorch", "slurm"), default="none", help=text)
    text = "go on from the run's newest saved state, if there is one"
    parser.add_argument("--auto_resume", action="store_true", help=text)
    text = "name the run debug_<name>, log every iteration, and save and validate every 8"
    parser.add_argument("--debug", action="store_true", help=text)
    parser.add_argument("--local_rank", type=int, default=0, help="set by torch.distributed.launch")
    text = "values that replace those of the option file: train:total_iter=1000"
    parser.add_argument("--force_yml", nargs="+", action="extend", default=[], metavar="KEY:SUBKEY=VALUE", help=text)
